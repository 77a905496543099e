//! The configured webhooks, checked and ready to sign.

use std::collections::BTreeMap;

use crate::config::{ConfigError, Secret, WebhookConfig};
use crate::ids::Tenant;

use super::signature::SigningKeys;
use super::target::Target;

/// One webhook.
pub struct Endpoint {
    /// As configured, which is how the outbox names it.
    text: String,
    pub target: Target,
    pub signing: SigningKeys,
    /// The API key whose events it gets; None: those of all.
    key: Option<String>,
}

/// All webhooks, with the API secrets that sign for LiveKit's receivers. It has no `Debug`.
pub struct Endpoints {
    list: Vec<Endpoint>,
    keys: BTreeMap<String, Secret>,
    allow_private: bool,
}

impl Endpoints {
    /// Checks the sections `[[webhook]]`; `keys` are the API keys with their secrets, and `allow_private` opens the
    /// operator's own network to webhooks. Errors name the section and key (`webhook[0].url`) and repeat no value.
    pub fn check(
        configs: &[WebhookConfig],
        keys: &BTreeMap<String, Secret>,
        allow_private: bool,
    ) -> Result<Self, ConfigError> {
        let mut list: Vec<Endpoint> = Vec::new();
        for (number, config) in configs.iter().enumerate() {
            let wrong =
                |key: &str, problem: String| ConfigError::Key { key: format!("webhook[{number}].{key}"), problem };
            let target = Target::read(&config.url, allow_private).map_err(|error| wrong("url", error.to_string()))?;
            let signing = SigningKeys::read(&config.secret).map_err(|error| wrong("secret", error.to_string()))?;
            if config.key.as_ref().is_some_and(|key| !keys.contains_key(key)) {
                return Err(wrong("key", "no such API key under [keys]".to_owned()));
            }
            // Two that match the same event would be one line of the outbox with two secrets.
            let overlaps = |other: &&Endpoint| {
                other.target == target && (other.key == config.key || other.key.is_none() || config.key.is_none())
            };
            if list.iter().any(|other| overlaps(&other)) {
                let problem = "the URL of another webhook, for the same events; use another URL or other keys";
                return Err(wrong("url", problem.to_owned()));
            }
            list.push(Endpoint { text: config.url.clone(), target, signing, key: config.key.clone() });
        }
        Ok(Self { list, keys: keys.clone(), allow_private })
    }

    /// The URLs that events of the tenant with this API key go to, as the outbox names them.
    pub fn urls<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = &'a str> {
        self.list.iter().filter(move |endpoint| endpoint.takes(tenant)).map(|endpoint| endpoint.text.as_str())
    }

    /// The URLs that each tenant's events go to.
    pub fn by_tenant(&self) -> BTreeMap<Tenant, Vec<String>> {
        let urls = |key: &String| (Tenant::from(key.as_str()), self.urls(key).map(str::to_owned).collect());
        self.keys.keys().map(urls).collect()
    }

    /// Where they post to.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.list.iter().map(|endpoint| &endpoint.target)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The webhook at `url` that takes events of this tenant.
    pub fn find(&self, url: &str, tenant: &str) -> Option<&Endpoint> {
        self.list.iter().find(|endpoint| endpoint.text == url && endpoint.takes(tenant))
    }

    /// The secret of an API key.
    pub fn api_secret(&self, tenant: &str) -> Option<&Secret> {
        self.keys.get(tenant)
    }

    /// Whether webhooks may reach the operator's own network.
    pub fn allow_private(&self) -> bool {
        self.allow_private
    }

    /// Whether any webhook needs certificates to be checked.
    pub fn any_https(&self) -> bool {
        self.list.iter().any(|endpoint| endpoint.target.is_https())
    }
}

impl Endpoint {
    fn takes(&self, tenant: &str) -> bool {
        self.key.as_ref().is_none_or(|key| key == tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a webhook's secret that nobody may see";

    fn check(webhooks: &[(&str, &str, Option<&str>)]) -> Result<Endpoints, String> {
        let configs: Vec<_> = webhooks
            .iter()
            .map(|(url, secret, key)| WebhookConfig {
                url: (*url).to_owned(),
                secret: (*secret).into(),
                key: key.map(str::to_owned),
            })
            .collect();
        let keys = ["a", "b"].map(|key| (key.to_owned(), Secret::from("an API secret of thirty-two bytes")));
        Endpoints::check(&configs, &BTreeMap::from(keys), false).map_err(|error| error.to_string())
    }

    #[test]
    fn errors_name_the_section_and_repeat_nothing() {
        let good = ("https://example.org/?token=hunter2", SECRET, None);
        for (second, beginning) in [
            (("http://example.org/?token=hunter2", SECRET, None), "webhook[1].url: expected https://"),
            (("hunter2", SECRET, None), "webhook[1].url: expected a URL"),
            (("https://hunter2@example.org", SECRET, None), "webhook[1].url: expected a URL without user name"),
            (("https://10.0.0.1/hunter2", SECRET, None), "webhook[1].url: the host is a private address"),
            (("https://169.254.169.254/hunter2", SECRET, None), "webhook[1].url: the host is an address"),
            (("https://example.net", "hunter2", None), "webhook[1].secret: expected whsec_ and base64 of at least 24"),
            (("https://example.net", "whsec_hunter2 hunter2", None), "webhook[1].secret: what follows whsec_"),
            (("https://example.net", SECRET, Some("hunter2")), "webhook[1].key: no such API key"),
            (("https://example.org:443/?token=hunter2", SECRET, Some("a")), "webhook[1].url: the URL of another"),
        ] {
            let error = check(&[good, second]).err().unwrap_or_default();
            assert!(error.starts_with(beginning) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_webhook_takes_the_events_of_its_key_or_of_all() {
        let one = ("https://example.org/", SECRET, Some("a"));
        let other = ("https://example.org/", "another secret of enough bytes", Some("b"));
        let all = ("https://example.net/", SECRET, None);
        let endpoints = check(&[one, other, all]).unwrap_or_else(|error| panic!("{error}"));
        let urls = |tenant| endpoints.urls(tenant).collect::<Vec<_>>();
        assert_eq!(urls("a"), ["https://example.org/", "https://example.net/"]);
        assert_eq!(urls("c"), ["https://example.net/"]);
        let signed = |tenant| endpoints.find("https://example.org/", tenant).map(|found| found.signing.sign("", 0, ""));
        assert!(signed("a").is_some() && signed("b").is_some() && signed("a") != signed("b"));
        assert!(signed("c").is_none());
    }
}
