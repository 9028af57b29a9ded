//! What does a repository have, and how does it come here?

use std::path::PathBuf;

use serde_json::Value;

use super::cache::{Cache, Kind, is_inside};
use super::environment::Environment;
use super::failure::Failure;
use super::session::Session;

/// A model or data set at a revision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repository<'a> {
    pub kind: Kind,
    /// `owner/name`, or a name alone for those that are older than owners; the Hub sends on from there.
    pub id: &'a str,
    /// A branch, tag or commit.
    pub revision: &'a str,
}

/// A file on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// From the repository's root.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// What its content is called: the SHA-256 of large files, git's hash of small ones.
    pub etag: String,
}

/// A revision's commit and files.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<Remote>,
}

impl Repository<'_> {
    /// As messages have it.
    pub(super) fn shown(&self) -> String {
        format!("`{}`", self.id)
    }

    /// Its part of the cache.
    pub(super) fn cache(&self, environment: &Environment) -> Cache {
        Cache::new(&environment.cache, self.kind, self.id)
    }

    /// What is here of it.
    pub(super) fn cached(&self) -> Option<PathBuf> {
        self.cache(&Environment::read()).snapshot(self.revision)
    }

    /// Asks what it has.
    pub(super) async fn list(&self, session: &Session) -> Result<Listing, Failure> {
        let (what, kind) = (self.shown(), self.kind.plural());
        let revision = encoded(self.revision);
        let about = session.json(&what, &format!("/api/{kind}/{}/revision/{revision}", self.id)).await?;
        let commit = about.get("sha").and_then(Value::as_str).filter(|sha| is_inside(sha) && !sha.contains('/'));
        let Some(commit) = commit.map(str::to_owned) else {
            return Err(Failure::Unexpected("it does not say which commit this is".to_owned()));
        };
        let tree = format!("/api/{kind}/{}/tree/{}?recursive=true", self.id, encoded(&commit));
        let files = session.list(&what, &tree).await?.iter().filter_map(remote).collect();
        Ok(Listing { commit, files })
    }

    /// Where a file of a commit lies.
    pub(super) fn address(&self, session: &Session, commit: &str, path: &str) -> String {
        let prefix = if self.kind == Kind::Dataset { "datasets/" } else { "" };
        let path: Vec<String> = path.split('/').map(encoded).collect();
        format!("{}/{prefix}{}/resolve/{}/{}", session.environment.endpoint, self.id, encoded(commit), path.join("/"))
    }
}

/// A file of a listing; folders are none, nor is what would lie outside the snapshot.
fn remote(entry: &Value) -> Option<Remote> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    if text(entry, "type")? != "file" {
        return None;
    }
    let lfs = entry.get("lfs").filter(|lfs| lfs.is_object());
    let etag = lfs.and_then(|lfs| text(lfs, "oid")).or_else(|| text(entry, "oid"))?;
    let file = Remote { path: text(entry, "path")?, size: entry.get("size")?.as_u64()?, etag };
    Some(file).filter(|file| is_inside(&file.path) && is_inside(&file.etag) && !file.etag.contains('/'))
}

/// As one part of an address: all but letters, digits and `-._~` as `%XX`.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn listings_are_read_with_care() {
        let small = json!({"type": "file", "oid": "ab", "size": 3, "path": "a b.json"});
        assert_eq!(remote(&small), Some(Remote { path: "a b.json".into(), size: 3, etag: "ab".into() }));
        let large = json!({"type": "file", "oid": "ab", "size": 3, "path": "m", "lfs": {"oid": "cd", "size": 3}});
        assert_eq!(remote(&large).unwrap().etag, "cd");
        for path in ["../x", "/etc/x", ""] {
            assert_eq!(remote(&json!({"type": "file", "oid": "ab", "size": 3, "path": path})), None);
        }
        assert_eq!(remote(&json!({"type": "file", "oid": "../ab", "size": 3, "path": "a"})), None);
        assert_eq!(remote(&json!({"type": "directory", "oid": "ab", "path": "a"})), None);
        assert_eq!(encoded("refs/convert/ä"), "refs%2Fconvert%2F%C3%A4");
    }
}
