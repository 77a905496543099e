//! One HTTP request with one event, and what came of it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect, retry};

use super::backoff::{self, Answer};
use super::endpoint::Endpoints;
use super::lines::URL_AT_ONCE;
use super::outbox::Delivery;
use super::signature::{self, livekit_token};
use super::target::{AddressRefused, Guard};

/// How long a receiver has for all of it: name, connection, TLS, request, status.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How much of a response's body is read, in bytes, and for how long. Nothing in it matters, but a connection whose
/// response was read whole serves the next event.
const BODY_MAX_BYTES: usize = 4 * 1024;
const BODY_TIME_LIMIT: Duration = Duration::from_secs(1);

/// How long an idle connection is kept: less than the 5 seconds after which Node.js closes it, for an event sent at
/// that moment would be lost and wait for its next attempt.
const IDLE_TIME: Duration = Duration::from_secs(4);

const USER_AGENT: &str = concat!("stube/", env!("CARGO_PKG_VERSION"));

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What a receiver said when nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knocked {
    pub host: String,
    pub answer: Answer,
}

/// Signs events and posts them.
pub struct Courier {
    client: Client,
    endpoints: Endpoints,
    time_limit: Duration,
}

impl Courier {
    /// A courier to these webhooks, over connections that pass `guard`. Fails if TLS is needed and the system's
    /// certificates cannot be read.
    pub fn new(endpoints: Endpoints, guard: Guard, time_limit: Duration) -> Result<Self, reqwest::Error> {
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .http1_only()
            .dns_resolver(Arc::new(guard))
            // The environment must not lead events elsewhere, nor around the guard; nor may a receiver.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(retry::never())
            .pool_max_idle_per_host(URL_AT_ONCE)
            .pool_idle_timeout(IDLE_TIME);
        // Without https nothing must be trusted, and the system may well have no certificates.
        let builder = if endpoints.any_https() { builder } else { builder.tls_certs_only([]) };
        Ok(Self { client: builder.build()?, endpoints, time_limit })
    }

    /// Posts one event; `now_s` is in seconds since 1970.
    pub async fn post(&self, delivery: &Delivery, now_s: u64) -> Answer {
        let Some(endpoint) = self.endpoints.find(&delivery.url, &delivery.tenant) else {
            return Answer::Refused("the configuration has no webhook with this URL for this API key");
        };
        let signature = endpoint.signing.sign(&delivery.event, now_s, &delivery.body);
        let Some(headers) = self.headers(delivery, &signature, now_s) else {
            return Answer::Refused("it cannot be signed: its API key is not in the configuration any more");
        };
        let request = self.client.post(endpoint.target.url().clone()).headers(headers).body(delivery.body.clone());
        match tokio::time::timeout(self.time_limit, request.send()).await {
            Err(_) => Answer::Silence("no answer in time"),
            Ok(Err(error)) => silence(&error),
            Ok(Ok(response)) => {
                let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after = asked.and_then(|value| backoff::retry_after(value, now_s));
                let answer = Answer::Status { code: response.status().as_u16(), retry_after };
                // The status has been said; what becomes of the body changes nothing.
                let _ = tokio::time::timeout(BODY_TIME_LIMIT, discard(response)).await;
                answer
            }
        }
    }

    /// Asks every receiver whether it is there: by HEAD, without an event and without a signature.
    pub async fn knock(&self) -> Vec<Knocked> {
        let knocks = self.endpoints.targets().map(|target| async {
            let request = self.client.head(target.url().clone());
            let answer = match tokio::time::timeout(self.time_limit, request.send()).await {
                Err(_) => Answer::Silence("no answer in time"),
                Ok(Err(error)) => silence(&error),
                Ok(Ok(response)) => Answer::Status { code: response.status().as_u16(), retry_after: None },
            };
            Knocked { host: target.host().to_owned(), answer }
        });
        join_all(knocks).await
    }

    /// The headers that say what it is and whose; None if the tenant's secret is not known.
    fn headers(&self, delivery: &Delivery, signature: &str, now_s: u64) -> Option<HeaderMap> {
        let secret = self.endpoints.api_secret(&delivery.tenant)?;
        let token = livekit_token(&delivery.tenant, secret, &delivery.body, now_s).ok()?;
        let mut authorization = HeaderValue::try_from(token).ok()?;
        authorization.set_sensitive(true);
        Some(HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static(signature::CONTENT_TYPE)),
            (WEBHOOK_ID, HeaderValue::try_from(&delivery.event).ok()?),
            (WEBHOOK_TIMESTAMP, HeaderValue::from(now_s)),
            (WEBHOOK_SIGNATURE, HeaderValue::try_from(signature).ok()?),
            (AUTHORIZATION, authorization),
        ]))
    }
}

/// Reads a body to its end or to the limit; what is over closes the connection.
async fn discard(mut response: Response) {
    let mut read_bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read_bytes += chunk.len();
        if read_bytes > BODY_MAX_BYTES {
            return;
        }
    }
}

/// Why there was no response, in words that hold nothing of the request.
fn silence(error: &reqwest::Error) -> Answer {
    let mut causes = std::iter::successors(error.source(), |&error| error.source());
    if causes.clone().any(<dyn Error>::is::<AddressRefused>) {
        return Answer::Refused("its name leads to an address that webhooks must not reach");
    }
    if error.is_dns() {
        return Answer::Silence("its name cannot be resolved");
    }
    match causes.find_map(|cause| cause.downcast_ref()).map(innermost) {
        Some(io::ErrorKind::ConnectionRefused) => Answer::Silence("it refuses connections"),
        // What rustls reports.
        Some(io::ErrorKind::InvalidData) => Answer::Silence("TLS failed; look at its certificate"),
        _ if error.is_connect() => Answer::Silence("it cannot be connected to"),
        _ => Answer::Silence("the connection broke"),
    }
}

/// What an I/O error is about, without those that are wrapped around it.
fn innermost(error: &io::Error) -> io::ErrorKind {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(inner) => innermost(inner),
        None => error.kind(),
    }
}
