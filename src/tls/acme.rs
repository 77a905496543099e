//! Orders a certificate by ACME (RFC 8555), proving each name by TLS-ALPN-01 (RFC 8737) on the public listener itself.

use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use serde::{Deserialize, Serialize};

use super::Tls;
use super::certificate::{Certificate, Flaw};
use super::challenges::AnswerError;
use super::directory::{Requests, RootError};
use super::keeping::{Folder, Kept};
use crate::config::Config;

/// Below the folder.
const ACCOUNT: &str = "account.json";
/// How long the server may take to look at the names, and then to issue.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(90));
/// How long an order may take as a whole.
const ORDER_TIMEOUT: Duration = Duration::from_secs(300);
/// What an ACME server says of an account that it does not know (any more).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What to order, of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub directory: String,
    pub contact: String,
    pub root: Option<PathBuf>,
    pub domains: Vec<String>,
}

impl Settings {
    /// Those of a configuration that names domains.
    pub fn of(config: &Config) -> Option<Self> {
        let tls = &config.http.tls;
        tls.has_domains().then(|| Self {
            directory: tls.acme_directory.clone(),
            contact: tls.acme_contact.clone(),
            root: Some(config.path(&tls.acme_root)).filter(|_| tls.acme_root != PathBuf::new()),
            domains: tls.domains.clone(),
        })
    }

    /// The certificate of an earlier order, if it is from the same server and for these names.
    pub fn kept(&self, folder: &Folder) -> Option<Certificate> {
        let kept = folder.certificate().filter(|kept| kept.directory == self.directory)?;
        let complain = |flaw: &Flaw| tracing::warn!(%flaw, "the certificate that was kept is left aside");
        let certificate = Certificate::from_pem(kept.chain.as_bytes(), kept.key.as_bytes()).inspect_err(complain);
        certificate.ok().filter(|certificate| certificate.covers(&self.domains))
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("http.tls.acme_root: {0}")]
    Root(#[from] RootError),
    #[error("the ACME server: {0}")]
    Server(#[from] Error),
    #[error("{domain} was not proven: {problem}")]
    Unproven { domain: String, problem: Problem },
    #[error("the ACME server offers no TLS-ALPN-01 for {0}")]
    NoChallenge(String),
    #[error("an authorization is {0:?}")]
    Authorization(AuthorizationStatus),
    #[error("the order is {0:?}")]
    Order(OrderStatus),
    #[error("no answer to the challenge: {0}")]
    Answer(#[from] AnswerError),
    #[error("what came cannot be used: {0}")]
    Unusable(#[from] Flaw),
    #[error("the state directory: {0}")]
    Keeping(#[from] std::io::Error),
    #[error("no end after five minutes")]
    TimedOut,
}

impl OrderError {
    /// What the operator can do about it.
    pub fn advice(&self) -> &'static str {
        let kind = match self {
            Self::Unproven { problem, .. } => problem.r#type.as_deref(),
            Self::Server(Error::Api(problem)) => problem.r#type.as_deref(),
            Self::Server(Error::Other(_)) => {
                return "the ACME server cannot be reached: check http.tls.acme_directory, DNS, and that 443 out is open";
            }
            Self::Server(Error::Json(_)) => return "what answers is no ACME server: check http.tls.acme_directory",
            Self::Keeping(_) => return "the server must be able to write below $STATE_DIRECTORY",
            Self::Root(_) => return "expected a PEM file that the server can read",
            _ => None,
        };
        match kind.and_then(|kind| kind.rsplit(':').next()) {
            Some("connection" | "tls") => "port 443 of the name must lead to http.listen: check DNS and firewall",
            Some("dns") => "the name must have an A or AAAA record that leads here",
            Some("unauthorized") => "something else answers at port 443 of the name, such as a proxy that ends TLS",
            Some("caa") => "the name's CAA record forbids this ACME server",
            Some("rateLimited") => "too many orders: nothing to do but wait",
            Some("rejectedIdentifier") => "this ACME server does not issue for this name",
            _ => "it is tried again by itself",
        }
    }
}

/// An order that failed.
#[derive(Debug)]
pub struct Failure {
    pub error: OrderError,
    /// How long the server wants us to wait.
    pub asked: Option<Duration>,
}

/// The account as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptAccount {
    directory: String,
    contact: String,
    credentials: AccountCredentials,
}

/// Orders a certificate, shows the answers to its challenges meanwhile, and keeps it. `now_s` is in seconds since 1970.
pub async fn order(settings: &Settings, folder: &Folder, tls: &Tls, now_s: u64) -> Result<Certificate, Failure> {
    let requests = match Requests::new(settings.root.as_deref(), now_s) {
        Ok(requests) => requests,
        Err(error) => return Err(Failure { error: error.into(), asked: None }),
    };
    let attempt = Attempt { settings, folder, tls, requests };
    let result = tokio::time::timeout(ORDER_TIMEOUT, attempt.run()).await;
    let asked = attempt.requests.asked();
    result.unwrap_or(Err(OrderError::TimedOut)).map_err(|error| Failure { error, asked })
}

struct Attempt<'a> {
    settings: &'a Settings,
    folder: &'a Folder,
    tls: &'a Tls,
    requests: Requests,
}

/// However it ends, given up included, nobody waits for its answers any more.
impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.tls.shown.challenges.clear();
    }
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Certificate, OrderError> {
        let identifiers: Vec<_> = self.settings.domains.iter().cloned().map(Identifier::Dns).collect();
        let wanted = NewOrder::new(&identifiers);
        let account = self.account().await?;
        let mut order = match account.new_order(&wanted).await {
            Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
                self.register().await?.new_order(&wanted).await?
            }
            order => order?,
        };
        self.prove(&mut order).await?;
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&PATIENCE).await?;
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes())?;
        self.folder.keep_certificate(&Kept { directory: self.settings.directory.clone(), key, chain })?;
        Ok(certificate)
    }

    /// The account that is kept, or a new one.
    async fn account(&self) -> Result<Account, OrderError> {
        let Settings { directory, contact, .. } = self.settings;
        let kept = self.folder.read::<KeptAccount>(ACCOUNT);
        match kept.filter(|kept| kept.directory == *directory && kept.contact == *contact) {
            Some(kept) => {
                let builder = Account::builder_with_http(Box::new(self.requests.clone()));
                Ok(builder.from_credentials(kept.credentials).await?)
            }
            None => self.register().await,
        }
    }

    /// Makes an account. It is kept before anything is ordered: a server that cannot write must not order at each start.
    async fn register(&self) -> Result<Account, OrderError> {
        let Settings { directory, contact, .. } = self.settings;
        let mail = format!("mailto:{contact}");
        let contacts: &[&str] = if contact.is_empty() { &[] } else { &[&mail] };
        let new = NewAccount { contact: contacts, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.requests.clone()));
        let (account, credentials) = builder.create(&new, directory.clone(), None).await?;
        let kept = KeptAccount { directory: directory.clone(), contact: contact.clone(), credentials };
        self.folder.write(ACCOUNT, &kept)?;
        Ok(account)
    }

    /// Proves every name that is not proven yet.
    async fn prove(&self, order: &mut Order) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(OrderError::Authorization(status)),
            }
            let domain = authorization.identifier().to_string();
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or_else(|| OrderError::NoChallenge(domain.clone()))?;
            let digest = challenge.key_authorization().digest();
            let digest = digest.as_ref().first_chunk().ok_or(Error::Crypto)?;
            self.tls.shown.challenges.add(&domain, digest)?;
            challenge.set_ready().await?;
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => Ok(()),
            result => Err(match (refused(order).await, result) {
                (Some((domain, problem)), _) => OrderError::Unproven { domain, problem },
                (None, Ok(status)) => OrderError::Order(status),
                (None, Err(error)) => error.into(),
            }),
        }
    }
}

/// The first name that the server did not find proven, and why.
async fn refused(order: &mut Order) -> Option<(String, Problem)> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.clone());
        if let Some(problem) = problem {
            return Some((authorization.identifier().to_string(), problem));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str) -> Problem {
        let json = serde_json::json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no"});
        serde_json::from_value(json).expect("a problem")
    }

    #[test]
    fn failures_say_what_to_do() {
        let unproven = |kind| OrderError::Unproven { domain: "a.example.org".to_owned(), problem: problem(kind) };
        for (error, advice) in [
            (unproven("connection"), "port 443"),
            (unproven("dns"), "A or AAAA"),
            (unproven("unauthorized"), "proxy"),
            (unproven("caa"), "CAA"),
            (Error::Api(problem("rateLimited")).into(), "wait"),
            (Error::Api(problem("serverInternal")).into(), "again by itself"),
            (Error::Other("no route".into()).into(), "cannot be reached"),
            (std::io::Error::from(std::io::ErrorKind::PermissionDenied).into(), "$STATE_DIRECTORY"),
            (OrderError::TimedOut, "again by itself"),
        ] {
            assert!(error.advice().contains(advice), "{error}: {}", error.advice());
        }
        let text = unproven("dns").to_string();
        assert_eq!(text, "a.example.org was not proven: API error: no (urn:ietf:params:acme:error:dns)");
    }
}
