//! How do files come into the cache? One after the other, the small ones first, each whole or not at all; what was cut
//! goes on where it was.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;

use super::cache::Cache;
use super::failure::Failure;
use super::repository::{Listing, Remote, Repository};
use super::session::{Patience, Session};
use super::verify;
use crate::error::Error;
use crate::util::progress::Progress;
use crate::util::{clock, files, interrupt, memory};

/// So much more of a file gives a connection that was cut all its attempts again.
const PROGRESS: u64 = 1 << 20;
/// Seconds between lines about a file that takes long, where there is no bar.
const EVERY: Duration = Duration::from_secs(30);

/// A download under way.
struct Download<'a> {
    session: &'a Session,
    repository: &'a Repository<'a>,
    cache: Cache,
    commit: &'a str,
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub files: usize,
    pub bytes: u64,
}

/// Brings the `wanted` files of a listing, and gives the folder they are in. Weights are the largest files, so a model whose
/// weights are there is there whole.
pub(super) async fn download(
    session: &Session,
    repository: &Repository<'_>,
    listing: &Listing,
    wanted: impl Fn(&Remote) -> bool,
) -> Result<(PathBuf, Came), Failure> {
    let begun = Instant::now();
    let cache = repository.cache(&session.environment);
    let download = Download { session, repository, cache, commit: &listing.commit };
    let folder = download.cache.folder(&listing.commit);
    let mut all: Vec<&Remote> = listing.files.iter().filter(|file| wanted(file)).collect();
    all.sort_by_key(|file| file.size);
    let mut came = Came::default();
    for file in all.into_iter().filter(|file| !folder.join(&file.path).exists()) {
        if download.blob(file).await? {
            came.files += 1;
            came.bytes += file.size;
        }
        download.cache.link(&listing.commit, &file.path, &file.etag)?;
    }
    files::create_dir(&folder)?;
    download.cache.remember(repository.revision, &listing.commit)?;
    if came.files > 0 {
        let (size, time) = (memory::human(came.bytes), clock::human(begun.elapsed().as_secs_f64()));
        let count = if came.files == 1 { "1 file".to_owned() } else { format!("{} files", came.files) };
        session.say(format!("fetched {} from the Hub: {count}, {size} in {time}", repository.shown()));
    }
    Ok((folder, came))
}

impl Download<'_> {
    /// Sees to it that a content is there; whether it had to come.
    async fn blob(&self, file: &Remote) -> Result<bool, Failure> {
        let blob = self.cache.blob(&file.etag);
        let mut said = false;
        let lock = loop {
            if blob.exists() {
                return Ok(false);
            }
            if let Some(lock) = self.cache.lock(&file.etag)? {
                break lock;
            }
            if !std::mem::replace(&mut said, true) {
                let what = self.repository.shown();
                self.session.say(format!("{what}: another process is fetching `{}`, waiting for it", file.path));
            }
            if interrupt::requested() {
                return Err(Failure::Stopped);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let part = self.cache.incomplete(&file.etag);
        // only a hash tells whether two pieces belong together
        if !verify::is_hash(&file.etag) || length(&part) > file.size {
            let _ = fs::remove_file(&part);
        }
        let (mut patience, mut furthest, mut damaged) = (Patience::default(), length(&part), false);
        loop {
            let resumed = length(&part) > 0;
            let attempt = self.attempt(file, &part).await;
            if let Err(failure) = attempt {
                let reached = length(&part);
                if reached >= furthest + PROGRESS {
                    (patience, furthest) = (Patience::default(), reached);
                }
                if !verify::is_hash(&file.etag) {
                    let _ = fs::remove_file(&part);
                }
                let at = if reached > 0 { format!(" at {}", memory::human(reached)) } else { String::new() };
                let what = format!("{}: `{}`{at}", self.repository.shown(), file.path);
                patience.wait(self.session, &what, failure).await?;
                continue;
            }
            if verify::matches(&part, &file.etag)? {
                break;
            }
            let _ = fs::remove_file(&part);
            // what was here already may have been at fault
            if !resumed || std::mem::replace(&mut damaged, true) {
                return Err(Error::model(format!("`{}` was damaged on its way, and is removed", file.path))
                    .with_hint("the same command fetches it again")
                    .into());
            }
        }
        fs::rename(&part, &blob).map_err(Error::io("rename to", &blob))?;
        drop(lock);
        Ok(true)
    }

    /// Fetches what is missing of a file into `part`, over one connection.
    async fn attempt(&self, file: &Remote, part: &Path) -> Result<(), Failure> {
        let begun = length(part);
        if begun == file.size && begun > 0 {
            return Ok(());
        }
        let address = self.repository.address(self.session, self.commit, &file.path);
        let mut answer = match self.session.get(&address, begun).await {
            // nothing of it is where this machine thinks to be
            Err(failure) if failure.status() == Some(416) => {
                let _ = fs::remove_file(part);
                return Err(Failure::Cut);
            }
            answer => answer?,
        };
        let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let goes_on = answer.status() == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| range.starts_with(&format!("bytes {begun}-")));
        // who does not know of ranges sends all of it
        let mut at = if goes_on { begun } else { 0 };
        let mut target = OpenOptions::new()
            .create(true)
            .write(true)
            .append(goes_on)
            .truncate(!goes_on)
            .open(part)
            .map_err(Error::io("write", part))?;
        if at > 0 {
            let (there, all) = (memory::human(at), memory::human(file.size));
            self.session.say(format!("{}: `{}` goes on at {there} of {all}", self.repository.shown(), file.path));
        }
        let bar = Progress::bytes(&file.path, file.size);
        let mut told = Instant::now();
        let result = loop {
            if interrupt::requested() {
                break Err(Failure::Stopped);
            }
            let piece = match answer.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            at += piece.len() as u64;
            if at > file.size {
                break Err(Failure::Unexpected(format!("`{}` has more bytes than it should", file.path)));
            }
            if let Err(error) = target.write_all(&piece) {
                break Err(Error::io("write", part)(error).into());
            }
            bar.set(at);
            if !bar.shown() && told.elapsed() > EVERY {
                told = Instant::now();
                let (there, all) = (memory::human(at), memory::human(file.size));
                self.session.say(format!("fetching `{}` of {}: {there} of {all}", file.path, self.repository.shown()));
            }
        };
        bar.finish();
        result?;
        if at < file.size { Err(Failure::Cut) } else { Ok(()) }
    }
}

/// How many bytes there are of a file.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}
