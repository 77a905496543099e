//! What ACME gave us, in files that only we can read: the account, and the certificate with its key.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Below the state directory.
const FOLDER: &str = "acme";
const CERTIFICATE: &str = "certificate.json";

/// A certificate as it is kept: key and chain together, so that they always fit.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// Whose it is: one of a test server is worth nothing to another.
    pub directory: String,
    /// PEM.
    pub key: String,
    /// PEM.
    pub chain: String,
}

/// The folder that holds it all.
#[derive(Clone, Default)]
pub struct Folder(PathBuf);

impl Folder {
    /// Below `state`. It is made when something is first written.
    pub fn below(state: &Path) -> Self {
        Self(state.join(FOLDER))
    }

    /// The certificate of the last order, if there was one.
    pub fn certificate(&self) -> Option<Kept> {
        self.read(CERTIFICATE)
    }

    /// Keeps a certificate.
    pub fn keep_certificate(&self, kept: &Kept) -> io::Result<()> {
        self.write(CERTIFICATE, kept)
    }

    /// What is in a file. One that cannot be read counts as none, for it can be had again; the log says so.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.0.join(name);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        };
        let complain =
            |error: &io::Error| tracing::warn!(path = %path.display(), %error, "left aside: it cannot be read");
        read.inspect_err(complain).ok()
    }

    /// Replaces a file as a whole.
    pub(super) fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(new, path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_ours_alone_and_damage_is_no_obstacle() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = Folder::below(state.path());
        assert!(folder.certificate().is_none());
        let kept = |chain: &str| Kept { directory: "d".to_owned(), key: "k".to_owned(), chain: chain.to_owned() };
        for chain in ["first", "second"] {
            folder.keep_certificate(&kept(chain)).expect("written");
            assert_eq!(folder.certificate().map(|kept| kept.chain).as_deref(), Some(chain));
        }
        let file = state.path().join("acme/certificate.json");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&state.path().join("acme"))), (0o600, 0o700));
        fs::write(&file, "{").expect("written");
        assert!(folder.certificate().is_none());
    }
}
