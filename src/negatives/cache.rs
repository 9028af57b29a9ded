//! Embeddings on disk, by model, prompt and text: what was encoded once is not encoded again.
//!
//! A folder for each model and way to encode; in it `texts.bin`, 16 bytes of hash a text after 8 that say how many values
//! an embedding has, and `vectors.bin`, these values as little-endian f32. Both only grow, vectors first, so that a
//! process that is killed loses the texts of one chunk. What is damaged is made anew.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};
use crate::flow::{Embeddings, EncodeOptions};
use crate::util::files;

/// Bytes of a text's hash.
const KEY: usize = 16;

/// A folder of kept embeddings of one model.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    model: String,
    open: HashMap<PathBuf, Shelf>,
    hits: usize,
    misses: usize,
    /// Folders whose content was damaged.
    damaged: Vec<PathBuf>,
}

/// The embeddings of texts that were encoded in one way.
#[derive(Debug)]
struct Shelf {
    texts: File,
    vectors: File,
    /// The place of each text.
    places: HashMap<u128, u64>,
    /// How many embeddings there are.
    rows: u64,
    /// Values of an embedding; 0 before the first.
    dim: usize,
    folder: PathBuf,
}

impl Cache {
    /// The cache in `folder`, for the model that `model` stands for: a text that changes with its weights.
    #[must_use]
    pub fn new(folder: &Path, model: &str) -> Self {
        Self {
            folder: folder.to_path_buf(),
            model: model.to_owned(),
            open: HashMap::new(),
            hits: 0,
            misses: 0,
            damaged: Vec::new(),
        }
    }

    /// Texts that were there, and texts that had to be encoded.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.hits, self.misses)
    }

    /// Folders whose content was damaged, so that its embeddings were made anew.
    #[must_use]
    pub fn damaged(&self) -> &[PathBuf] {
        &self.damaged
    }

    /// The embeddings of texts, in order; `encode` is asked for those that are not kept, and they are from then on.
    ///
    /// # Errors
    /// `encode`'s, and when the folder cannot be read or written or another process is writing to it.
    pub fn through(
        &mut self,
        texts: &[&str],
        options: &EncodeOptions,
        encode: &mut dyn FnMut(&[&str]) -> Result<Embeddings>,
    ) -> Result<Embeddings> {
        let way = format!(
            "{}\n{:?}\n{:?}\n{:?}\n{}",
            self.model, options.prompt, options.task, options.truncate_dim, options.bf16
        );
        let folder = self.folder.join(format!("{:032x}", xxh3_128(way.as_bytes())));
        if !self.open.contains_key(&folder) {
            let (shelf, whole) = Shelf::open(&folder)?;
            self.open.insert(folder.clone(), shelf);
            if !whole {
                self.damaged.push(folder.clone());
            }
        }
        let Some(shelf) = self.open.get_mut(&folder) else {
            return Err(Error::Internal("a shelf of embeddings is gone".to_owned()));
        };
        let keys: Vec<u128> = texts.iter().map(|text| xxh3_128(text.as_bytes())).collect();
        let mut missing: Vec<usize> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (i, key) in keys.iter().enumerate() {
            if !shelf.places.contains_key(key) && seen.insert(*key) {
                missing.push(i);
            }
        }
        if !missing.is_empty() {
            let wanted: Vec<&str> = missing.iter().map(|i| texts[*i]).collect();
            let embeddings = encode(&wanted)?;
            if embeddings.rows() != wanted.len() {
                return Err(Error::Internal(format!("{} texts gave {} embeddings", wanted.len(), embeddings.rows())));
            }
            // what is no number is told by whoever asked, and is not kept
            if embeddings.data().iter().any(|value| !value.is_finite()) {
                return encode(texts);
            }
            let new: Vec<u128> = missing.iter().map(|i| keys[*i]).collect();
            shelf.put(&new, &embeddings)?;
        }
        self.misses += missing.len();
        self.hits += texts.len() - missing.len();
        shelf.get(&keys)
    }
}

/// How `texts.bin` begins: the width, and the same with all bits turned, so that damage is seen.
fn head(dim: u32) -> [u8; 8] {
    (u64::from(dim) | u64::from(!dim) << 32).to_le_bytes()
}

/// The width that a head tells; `None` for a damaged one.
fn width(head: [u8; 8]) -> Option<u32> {
    let dim = u64::from_le_bytes(head) as u32;
    (head == self::head(dim) && dim > 0).then_some(dim)
}

impl Shelf {
    /// The shelf in a folder, and whether what was there could be used.
    fn open(folder: &Path) -> Result<(Self, bool)> {
        files::create_dir(folder)?;
        let open = |name: &str| -> Result<(File, PathBuf)> {
            let path = folder.join(name);
            let file = files::open_with(OpenOptions::new().read(true).write(true).create(true).truncate(false), &path)?;
            Ok((file, path))
        };
        let ((mut texts, path), (vectors, vectors_path)) = (open("texts.bin")?, open("vectors.bin")?);
        if !files::lock(&texts) {
            return Err(Error::usage(format!("another process is writing embeddings to `{}`", folder.display()))
                .with_hint("wait for it, or name another `cache_folder`"));
        }
        let mut bytes = Vec::new();
        texts.read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let length = vectors.metadata().map_err(Error::io("read", &vectors_path))?.len();
        // a process that was killed over the first bytes has written no embedding that counts
        let (dim, keys, sound) = match bytes.split_first_chunk::<8>() {
            None => (None, &[][..], true),
            Some((head, keys)) => (width(*head), keys, width(*head).is_some()),
        };
        let mut shelf = Self { texts, vectors, places: HashMap::new(), rows: 0, dim: 0, folder: folder.to_path_buf() };
        let Some(dim) = dim else { return Ok((shelf, sound)) };
        // what a killed process left half written does not count
        let size = 4 * u64::from(dim);
        let whole = (length / size).min((keys.len() / KEY) as u64);
        let key = |bytes: &[u8]| bytes.try_into().map_or(0, u128::from_le_bytes);
        shelf.places = keys.chunks_exact(KEY).map(key).zip(0..whole).collect();
        (shelf.dim, shelf.rows) = (dim as usize, whole);
        shelf.texts.set_len(8 + whole * KEY as u64).map_err(Error::io("write", &path))?;
        shelf.vectors.set_len(whole * size).map_err(Error::io("write", &vectors_path))?;
        Ok((shelf, sound))
    }

    fn put(&mut self, keys: &[u128], embeddings: &Embeddings) -> Result<()> {
        let path = self.folder.join("vectors.bin");
        if self.dim == 0 {
            let Some(dim) = u32::try_from(embeddings.dim()).ok().filter(|dim| *dim > 0) else {
                return Err(Error::Internal(format!("embeddings of {} values", embeddings.dim())));
            };
            self.dim = embeddings.dim();
            self.texts.set_len(0).and_then(|()| self.vectors.set_len(0)).map_err(Error::io("write", &path))?;
            self.texts.seek(SeekFrom::Start(0)).map_err(Error::io("write", &path))?;
            self.texts.write_all(&head(dim)).map_err(Error::io("write", &path))?;
        }
        if self.dim != embeddings.dim() {
            return Err(Error::data(format!(
                "`{}` holds embeddings of {} values, and the model gives {}",
                self.folder.display(),
                self.dim,
                embeddings.dim()
            ))
            .with_hint("delete that folder, or name another `cache_folder`"));
        }
        let bytes: Vec<u8> = embeddings.data().iter().flat_map(|x| x.to_le_bytes()).collect();
        let write = |file: &mut File, bytes: &[u8]| {
            file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(bytes)).and_then(|()| file.flush())
        };
        write(&mut self.vectors, &bytes).map_err(Error::io("write", &path))?;
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
        write(&mut self.texts, &bytes).map_err(Error::io("write", self.folder.join("texts.bin")))?;
        self.places.extend(keys.iter().copied().zip(self.rows..));
        self.rows += keys.len() as u64;
        Ok(())
    }

    fn get(&mut self, keys: &[u128]) -> Result<Embeddings> {
        let path = self.folder.join("vectors.bin");
        let width = 4 * self.dim;
        let mut data = Vec::with_capacity(keys.len() * self.dim);
        let mut bytes = vec![0; width];
        let mut next = None;
        for key in keys {
            let place = self.places.get(key).copied().unwrap_or(0);
            // texts of a chunk mostly stand one after the other
            if next != Some(place) {
                self.vectors.seek(SeekFrom::Start(place * width as u64)).map_err(Error::io("read", &path))?;
            }
            self.vectors.read_exact(&mut bytes).map_err(Error::io("read", &path))?;
            data.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap_or_default())));
            next = Some(place + 1);
        }
        Ok(Embeddings::new(self.dim, data))
    }
}
