#!lua
-- Everything that is done to a store in Redis, as one script: Redis runs it alone, so each call is atomic.
--
-- KEYS  meta     hash: "revision"; "server", the run id of the server that counts it; "bytes", of the changes kept
--       entries  hash: each key of ours, with "<create revision> <mod revision> <lease>\n<value>"
--       index    sorted set: the same keys, in the order of their bytes
--       leases   sorted set: each lease, with the time in ms at which it runs out
--       ttls     hash: each lease, with its time to live in ms
--       held     sorted set: "<lease>:<key>" for each key on a lease
--       changes  stream: one entry for each revision, of the same number; the oldest are dropped
--       wake     stream: the newest revision and nothing else, to block on
-- ARGV  1 what to do, 2 the run id of the server, then what that takes.
--
-- A lease is 16 hexadecimal digits. A range is two words: a key and "", or the two ends of an interval of the index.

local META, ENTRIES, INDEX, LEASES, TTLS, HELD, CHANGES, WAKE = unpack(KEYS)
local NO_LEASE = string.rep('0', 16)
local MAX_CHANGES, MAX_CHANGE_BYTES = 10000, 64 * 1024 * 1024
local MAX_READ_CHANGES, MAX_READ_BYTES = 1000, 4 * 1024 * 1024
local MAX_EXPIRED = 1000

local call = redis.call
local cursor = 2
local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function text(number)
  return string.format('%.0f', number)
end

local time = call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local revision = tonumber(call('HGET', META, 'revision') or nil)
local changes = {} -- of the transaction under way

local function tell()
  call('HSET', META, 'revision', text(revision))
  call('XADD', WAKE, 'MAXLEN', 1, text(revision) .. '-0', 'r', '')
end

-- Another server process, or an empty one: what was acknowledged may be lost. The revision jumps to the time, past all that
-- were lost, so that no number is given twice and each watch notices; leases begin anew, since nobody could refresh them.
local function begin(server)
  revision = math.max((revision or 0) + 1, now)
  call('DEL', CHANGES, WAKE)
  call('HSET', META, 'server', server, 'bytes', 0)
  tell()
  for _, lease in ipairs(call('ZRANGE', LEASES, 0, -1)) do
    call('ZADD', LEASES, text(now + tonumber(call('HGET', TTLS, lease) or 0)), lease)
  end
end

local function commit()
  if #changes == 0 then
    return
  end
  revision = revision + 1
  local change = table.concat(changes)
  changes = {}
  call('XADD', CHANGES, text(revision) .. '-0', 'c', change)
  tell()
  local bytes = call('HINCRBY', META, 'bytes', #change)
  while bytes > MAX_CHANGE_BYTES or call('XLEN', CHANGES) > MAX_CHANGES do
    local oldest = call('XRANGE', CHANGES, '-', '+', 'COUNT', 1)[1]
    call('XDEL', CHANGES, oldest[1])
    bytes = call('HINCRBY', META, 'bytes', -#oldest[2][2])
  end
end

local function parse(packed)
  local create, mod, lease, value = string.match(packed, '^(%d+) (%d+) (%x+)\n()')
  return create, mod, lease, value
end

local function note(sign, key, packed)
  changes[#changes + 1] = string.format('%s%d %d\n', sign, #key, #packed)
  changes[#changes + 1] = key
  changes[#changes + 1] = packed
end

local function put(key, value, lease)
  local old = call('HGET', ENTRIES, key)
  local mod = text(revision + 1)
  local create = mod
  if old then
    local first, _, holder = parse(old)
    create = first
    if holder ~= NO_LEASE then
      call('ZREM', HELD, holder .. ':' .. key)
    end
  else
    call('ZADD', INDEX, 0, key)
  end
  local packed = create .. ' ' .. mod .. ' ' .. lease .. '\n' .. value
  call('HSET', ENTRIES, key, packed)
  if lease ~= NO_LEASE then
    call('ZADD', HELD, 0, lease .. ':' .. key)
  end
  note('+', key, packed)
end

local function remove(key)
  local old = call('HGET', ENTRIES, key)
  if not old then
    return
  end
  local _, _, holder = parse(old)
  call('HDEL', ENTRIES, key)
  call('ZREM', INDEX, key)
  if holder ~= NO_LEASE then
    call('ZREM', HELD, holder .. ':' .. key)
  end
  note('-', key, '')
end

local function revoke(lease)
  call('HDEL', TTLS, lease)
  local existed = call('ZREM', LEASES, lease)
  for _, member in ipairs(call('ZRANGEBYLEX', HELD, '[' .. lease .. ':', '(' .. lease .. ';')) do
    remove(string.sub(member, 18))
  end
  commit()
  return existed
end

local function expire()
  for _, lease in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', text(now), 'LIMIT', 0, MAX_EXPIRED)) do
    revoke(lease)
  end
end

local function names(low, high)
  if high == '' then
    return { low }
  end
  return call('ZRANGEBYLEX', INDEX, low, high)
end

local function matches(key, low, high)
  if high == '' then
    return key == low
  end
  return (low == '-' or key >= string.sub(low, 2)) and (high == '+' or key < string.sub(high, 2))
end

local function read(low, high, keys_only)
  local found = {}
  for _, key in ipairs(names(low, high)) do
    local packed = call('HGET', ENTRIES, key)
    if packed then
      if keys_only then
        local _, _, _, value = parse(packed)
        packed = string.sub(packed, 1, value - 1)
      end
      found[#found + 1] = key
      found[#found + 1] = packed
    end
  end
  return found
end

-- The changes of a range after a revision: {1, number up to which they go, number, change, number, change ...},
-- or {0, number, key, entry ...} if they are not all there.
local function follow(after, low, high)
  local oldest = call('XRANGE', CHANGES, '-', '+', 'COUNT', 1)[1]
  local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or revision + 1
  if not after or after > revision or after < first - 1 then
    local found = read(low, high)
    table.insert(found, 1, 0)
    table.insert(found, 2, revision)
    return found
  end
  local found, bytes = { 1, revision }, 0
  local start = text(after + 1) .. '-0'
  for _, each in ipairs(call('XRANGE', CHANGES, start, '+', 'COUNT', MAX_READ_CHANGES)) do
    local number, change = tonumber(string.match(each[1], '^%d+')), each[2][2]
    local parts, at = {}, 1
    while at <= #change do
      local _, head, key_size, size = string.find(change, '^[+-](%d+) (%d+)\n', at)
      local last = head + tonumber(key_size) + tonumber(size)
      if matches(string.sub(change, head + 1, head + tonumber(key_size)), low, high) then
        parts[#parts + 1] = string.sub(change, at, last)
      end
      at = last + 1
    end
    found[2] = number
    if #parts > 0 then
      found[#found + 1] = number
      found[#found + 1] = table.concat(parts)
      bytes = bytes + #found[#found]
      if bytes > MAX_READ_BYTES then
        break
      end
    end
  end
  return found
end

local actions = {}

function actions.read()
  return { revision, read(take(), take(), take() == '1') }
end

function actions.transact()
  local succeeded = true
  for _ = 1, tonumber(take()) do
    local kind, key, wanted = take(), take(), take()
    local packed = call('HGET', ENTRIES, key)
    local mod, lease = '0', NO_LEASE
    if packed then
      _, mod, lease = parse(packed)
    end
    succeeded = succeeded
      and ((kind == 'absent' and not packed) or (kind == 'lease' and lease == wanted) or (kind == 'revision' and mod == wanted))
  end
  local branches = {}
  for branch = 1, 2 do
    branches[branch] = {}
    for position = 1, tonumber(take()) do
      branches[branch][position] = { take(), take(), take(), take() }
    end
  end
  local branch = branches[succeeded and 1 or 2]
  local is_written = false
  for _, each in ipairs(branch) do
    local kind, low, _, last = unpack(each)
    if kind == 'put' and last ~= NO_LEASE and not call('ZSCORE', LEASES, last) then
      return redis.error_reply('TRUNKLINELEASE ' .. last)
    elseif kind == 'get' and last ~= '0' and (is_written or last ~= text(revision)) then
      return redis.error_reply('TRUNKLINEREVISION ' .. last .. ' of ' .. text(revision))
    end
    is_written = is_written or kind ~= 'get'
  end
  local reads = {}
  for _, each in ipairs(branch) do
    local kind, low, high, last = unpack(each)
    if kind == 'put' then
      put(low, high, last)
    elseif kind == 'delete' then
      for _, key in ipairs(names(low, high)) do
        remove(key)
      end
    else
      reads[#reads + 1] = read(low, high)
    end
  end
  commit()
  return { succeeded and 1 or 0, revision, reads }
end

function actions.grant()
  local lease, ttl = take(), take()
  call('ZADD', LEASES, text(now + tonumber(ttl)), lease)
  call('HSET', TTLS, lease, ttl)
  return 1
end

function actions.refresh()
  local known = {}
  for position = 1, tonumber(take()) do
    local lease = take()
    local ttl = call('HGET', TTLS, lease)
    known[position] = ttl and 1 or 0
    if ttl then
      call('ZADD', LEASES, text(now + tonumber(ttl)), lease)
    end
  end
  return known
end

function actions.revoke()
  return revoke(take())
end

function actions.left()
  local ends = call('ZSCORE', LEASES, take())
  return ends and math.max(0, tonumber(ends) - now) or -1
end

-- What is new for several watches, and when the next lease runs out (in ms from now; -1 for none).
function actions.follow()
  local found = {}
  for position = 1, tonumber(take()) do
    local after, low, high = take(), take(), take()
    found[position] = follow(tonumber(after), low, high)
  end
  local next_lease = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
  return { revision, next_lease[2] and math.max(0, tonumber(next_lease[2]) - now) or -1, found }
end

if not revision or call('HGET', META, 'server') ~= ARGV[2] then
  begin(ARGV[2])
end
expire()
return actions[ARGV[1]]()
