//! The way to an ACME server: reqwest as everywhere else, with time limits, and an ear for `Retry-After`.

use std::convert::Infallible;
use std::error::Error as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::RETRY_AFTER;
use hyper::http::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::webhook::backoff;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests to one ACME server.
#[derive(Clone)]
pub(super) struct Requests {
    client: reqwest::Client,
    /// What the last answer that refused something asked us to wait.
    asked: Arc<Mutex<Option<Duration>>>,
    /// Seconds since 1970, at the order's begin.
    now_s: u64,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("{path}: {problem}")]
    Unreadable { path: String, problem: String },
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

impl Requests {
    /// `root` is a further root to believe the server by.
    pub(super) fn new(root: Option<&Path>, now_s: u64) -> Result<Self, RootError> {
        let mut client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).https_only(true);
        if let Some(path) = root {
            let unreadable = |problem: String| RootError::Unreadable { path: path.display().to_string(), problem };
            let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(error.to_string()))?;
            if roots.is_empty() {
                return Err(unreadable("no certificate in it".to_owned()));
            }
            client = client.tls_certs_merge(roots);
        }
        Ok(Self { client: client.build()?, asked: Arc::default(), now_s })
    }

    /// How long the server wants us to wait.
    pub(super) fn asked(&self) -> Option<Duration> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never as Infallible {},
        };
        let request = reqwest::Request::try_from(Request::from_parts(parts, body)).map_err(explained)?;
        let response = Response::from(self.client.execute(request).await.map_err(explained)?);
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            let value = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let asked = value.and_then(|value| backoff::retry_after(value, self.now_s));
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        }
        let body = body.collect().await.map_err(explained)?.to_bytes();
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

/// With its causes, of which the last says most: the name, the connection, the certificate.
fn explained(error: reqwest::Error) -> Error {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    Error::Other(text.into())
}

impl HttpClient for Requests {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}
