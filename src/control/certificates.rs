//! Gets the certificate of the public listener by ACME, and renews it in time. Files are the operator's to renew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use super::app::{App, fresh_seed};
use crate::ledger::record::UnixMs;
use crate::ledger::state_directory;
use crate::tls::acme::{self, Failure, Settings};
use crate::tls::keeping::Folder;
use crate::tls::{OrderResult, Tls, schedule};

/// How often to look at the clock at least: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(600);

/// Keeps a certificate until `stop` turns true.
pub async fn keep(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let Some(tls) = app.tls.clone() else { return };
    let mut keeping = Keeping { folder: Folder::below(&state_directory()), ..Keeping::default() };
    loop {
        let work = async {
            keeping.follow(&app, &tls).await;
            let wait = keeping.wait(&app, &tls);
            if wait.is_zero() {
                keeping.order(&app, &tls).await;
            } else {
                pause(wait, &tls).await;
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = work => {}
        }
    }
}

/// Ends after a while, or when the configuration was read anew.
#[expect(clippy::disallowed_methods, reason = "until a certificate is due")]
async fn pause(wait: Duration, tls: &Tls) {
    tokio::select! {
        () = sleep(wait.min(LOOK)) => {}
        () = tls.changed.notified() => {}
    }
}

/// Ends when the configuration wants something else than `settings`.
async fn superseded(settings: &Settings, app: &App, tls: &Tls) {
    while Settings::of(&app.config()).as_ref() == Some(settings) {
        tls.changed.notified().await;
    }
}

/// An ACME server wants to be left alone with an order.
struct Asked {
    settings: Settings,
    until: Instant,
}

impl Asked {
    /// Until when an order by these settings has to wait too. Another account is no way around it; for other names it
    /// is another order.
    fn until(&self, settings: &Settings) -> Option<Instant> {
        let is_same = settings.directory == self.settings.directory && settings.domains == self.settings.domains;
        is_same.then_some(self.until)
    }
}

#[derive(Default)]
struct Keeping {
    folder: Folder,
    /// Of the configuration; none while the certificate is in files.
    settings: Option<Settings>,
    /// The certificate that is shown was ordered by them.
    holds: bool,
    /// Orders that failed in a row.
    failures: u32,
    /// Not before this.
    again_at: Option<Instant>,
    /// By the server at the last failure; it outlives a change of the settings.
    asked: Option<Asked>,
}

impl Keeping {
    /// Takes over what the configuration says now. Other settings are tried at once, unless the server has asked for
    /// patience. The same are not, however often they are read: that would be a way past every pause.
    async fn follow(&mut self, app: &App, tls: &Tls) {
        // No reload comes between reading what is wanted and showing it.
        let _held = app.reloads.lock().await;
        let settings = Settings::of(&app.config());
        if settings == self.settings {
            return;
        }
        let kept = settings.as_ref().and_then(|settings| settings.kept(&self.folder));
        let (folder, asked) = (self.folder.clone(), self.asked.take());
        let again_at = settings.as_ref().and_then(|settings| asked.as_ref()?.until(settings));
        *self = Self { folder, settings, holds: kept.is_some(), failures: 0, again_at, asked };
        if let Some(kept) = kept {
            tls.show(kept);
        }
    }

    /// How long nothing is to be done.
    fn wait(&self, app: &App, tls: &Tls) -> Duration {
        if self.settings.is_none() {
            return LOOK;
        }
        let held = tls.certificate().filter(|_| self.holds);
        let due = held.map_or(0, |held| schedule::renewal(held.not_before, held.not_after));
        let until_due = Duration::from_secs(due.saturating_sub(app.clock.unix_seconds()));
        let again = self.again_at.map(|at| at.saturating_duration_since(app.clock.now()));
        until_due.max(again.unwrap_or_default())
    }

    async fn order(&mut self, app: &App, tls: &Tls) {
        let Some(settings) = &self.settings else { return };
        let result = tokio::select! {
            result = acme::order(settings, &self.folder, tls, app.clock.unix_seconds()) => result,
            () = superseded(settings, app, tls) => return,
        };
        match result {
            Ok(certificate) => {
                let until = UnixMs(certificate.not_after * 1000);
                tracing::info!(%until, "the ACME server has issued a certificate");
                tls.count_order(OrderResult::Issued);
                let rest = schedule::rest(certificate.not_before, certificate.not_after);
                self.again_at = Some(app.clock.now() + rest);
                (self.failures, self.asked) = (0, None);
                // A reload may have come meanwhile and want another, such as one of files; this one stays kept.
                let _held = app.reloads.lock().await;
                if Settings::of(&app.config()).as_ref() == Some(settings) {
                    tls.show(certificate);
                    self.holds = true;
                }
            }
            Err(Failure { error, asked }) => {
                tls.count_order(OrderResult::Failed);
                self.failures += 1;
                let random = fresh_seed().first_chunk().copied().map_or(0, u32::from_be_bytes);
                let pause = schedule::pause(self.failures, asked, random);
                let now = app.clock.now();
                self.again_at = Some(now + pause);
                self.asked =
                    asked.map(|asked| Asked { settings: settings.clone(), until: now + schedule::believed(asked) });
                let (advice, again_in_s) = (error.advice(), pause.as_secs());
                tracing::error!(%error, advice, again_in_s, "no certificate from the ACME server");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_that_was_asked_for_holds_for_the_same_order_whoever_gives_it() {
        let asked_for = |directory: &str, contact: &str, domain: &str| Settings {
            directory: directory.to_owned(),
            contact: contact.to_owned(),
            root: None,
            domains: vec![domain.to_owned()],
        };
        let until = Instant::now();
        let asked = Asked { settings: asked_for("https://a/dir", "", "sfu.example.org"), until };
        for (directory, contact, domain, waits) in [
            ("https://a/dir", "", "sfu.example.org", true),
            ("https://a/dir", "operator@example.org", "sfu.example.org", true),
            ("https://a/dir", "", "other.example.org", false),
            ("https://b/dir", "", "sfu.example.org", false),
        ] {
            let settings = asked_for(directory, contact, domain);
            assert_eq!(asked.until(&settings), waits.then_some(until), "{settings:?}");
        }
    }
}
