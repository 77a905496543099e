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
            keeping.follow(&app, &tls);
            let wait = keeping.wait(&app, &tls);
            if wait.is_zero() {
                keeping.order(&app, &tls).await;
            } else if pause(wait, &tls).await {
                // Whoever has mended something need not wait for it to be tried.
                keeping.again_at = None;
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = work => {}
        }
    }
}

/// Ends after a while, or when the configuration was read anew: then it is true.
#[expect(clippy::disallowed_methods, reason = "until a certificate is due")]
async fn pause(wait: Duration, tls: &Tls) -> bool {
    tokio::select! {
        () = sleep(wait.min(LOOK)) => false,
        () = tls.changed.notified() => true,
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
}

impl Keeping {
    /// Takes over what the configuration says now. Other settings are tried at once.
    fn follow(&mut self, app: &App, tls: &Tls) {
        let settings = Settings::of(&app.config());
        if settings == self.settings {
            return;
        }
        let kept = settings.as_ref().and_then(|settings| settings.kept(&self.folder));
        *self = Self { folder: self.folder.clone(), settings, holds: kept.is_some(), ..Self::default() };
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
        let result = acme::order(settings, &self.folder, tls, app.clock.unix_seconds()).await;
        match result {
            Ok(certificate) => {
                let until = UnixMs(certificate.not_after * 1000);
                tracing::info!(%until, "the ACME server has issued a certificate");
                tls.count_order(OrderResult::Issued);
                let rest = schedule::rest(certificate.not_before, certificate.not_after);
                self.again_at = Some(app.clock.now() + rest);
                tls.show(certificate);
                (self.holds, self.failures) = (true, 0);
            }
            Err(Failure { error, asked }) => {
                tls.count_order(OrderResult::Failed);
                self.failures += 1;
                let random = fresh_seed().first_chunk().copied().map_or(0, u32::from_be_bytes);
                let pause = schedule::pause(self.failures, asked, random);
                self.again_at = Some(app.clock.now() + pause);
                let (advice, again_in_s) = (error.advice(), pause.as_secs());
                tracing::error!(%error, advice, again_in_s, "no certificate from the ACME server");
            }
        }
    }
}
