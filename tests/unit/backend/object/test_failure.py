from __future__ import annotations

import pytest

from trunkline.backend.plugins.object.failure import Redaction, explain

REFUSED = """Generic S3 error: Error performing GET http://127.0.0.1:9/b/k?X-Amz-Signature=abcdef in 2.9ms - HTTP error

Debug source:
Generic { source: RetryError( RetryErrorImpl { retries: 2, max_retries: 2, elapsed: 1.5s, retry_timeout: 180s,
 inner: Http( HttpError { kind: Connect, source: reqwest::Error { source: Os { code: 111, kind: ConnectionRefused,
 message: "Connection refused", } } } ) } ) }"""
SLOW_DOWN = """Generic S3 error: Error performing PUT http://h/b/k in 1s - Server returned error status code: \
503 Service Unavailable: <Error><Code>SlowDown</Code><Message>Please reduce.</Message></Error>

Debug source: ..."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(REFUSED),
            "no connection (Connection refused); tried 3 times in 1.5s: check the endpoint, and that the store is up",
        ),
        (
            OSError(SLOW_DOWN),
            (
                "HTTP 503 Service Unavailable, SlowDown (Please reduce.): the store throttles or is overloaded: use a "
                "lower concurrency, or more retries"
            ),
        ),
        (
            OSError(SLOW_DOWN.replace("PUT", "DELETE")),
            (
                "HTTP 503 Service Unavailable, SlowDown (Please reduce.) when the upload was aborted because a part of "
                "it had failed: the store throttles or is overloaded: use a lower concurrency, or more retries; parts "
                "may be left at the store"
            ),
        ),
        (FileNotFoundError("Object at location a not found"), "there is no such object: check the key"),
        (ValueError("nothing known\nof two lines"), "nothing known of two lines"),
    ],
)
def test_says_what_the_store_answered_and_what_to_do(error: Exception, said: str) -> None:
    assert explain(error, Redaction({}, {})) == said


def test_takes_secrets_out() -> None:
    options = {
        "secret_access_key": "OptionSecret",
        "access_key_id": "PublicId",
        "region": "eu",
        "sas_key": "sv=1&sig=x",
    }
    redaction = Redaction(options, {"AWS_SESSION_TOKEN": "FromEnvironment", "HOME_KEY": "homely", "AZURE_X_KEY": "abc"})
    text = "OptionSecret PublicId FromEnvironment homely abc at https://h/c?sv=1&sig=x and sv=1&sig=x"
    assert redaction.clean(text) == "*** PublicId *** homely abc at https://h/c and ***"
    assert "Secret" not in repr(redaction)
