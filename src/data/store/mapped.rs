//! Flat arrays in files: written once in a stream, read by memory mapping.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::util::files;

/// Types every bit pattern of which is a value, without padding.
///
/// # Safety
/// Only for such types, of an alignment that a page has.
pub(super) unsafe trait Plain: Copy + 'static {}

// SAFETY: primitive numbers.
unsafe impl Plain for u32 {}
// SAFETY: primitive numbers.
unsafe impl Plain for u64 {}
// SAFETY: primitive numbers.
unsafe impl Plain for f64 {}

/// What a finished file must look like; enough to notice one that was cut off, swapped or half-written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    pub bytes: u64,
    /// Hash of the first and the last 64 KiB.
    pub ends: String,
}

const END: u64 = 1 << 16;

impl Seal {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let mut file = files::open(path)?;
        let read = |e| Error::io("read", path)(e);
        let bytes = file.metadata().map_err(read)?.len();
        let (mut hash, mut buffer) = (Xxh3::new(), Vec::new());
        (&mut file).take(END).read_to_end(&mut buffer).map_err(read)?;
        hash.update(&buffer);
        if bytes > END {
            buffer.clear();
            file.seek(SeekFrom::Start(bytes.saturating_sub(END).max(END))).map_err(read)?;
            file.read_to_end(&mut buffer).map_err(read)?;
            hash.update(&buffer);
        }
        Ok(Self { bytes, ends: format!("{:032x}", hash.digest128()) })
    }
}

/// A file being filled with numbers.
pub(super) struct Writer<T> {
    out: BufWriter<File>,
    path: PathBuf,
    kind: PhantomData<T>,
}

impl<T: Plain> Writer<T> {
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let out = BufWriter::with_capacity(1 << 18, files::create(&path)?);
        Ok(Self { out, path, kind: PhantomData })
    }

    pub(super) fn push(&mut self, values: &[T]) -> Result<()> {
        // SAFETY: `T` has no padding, so all its bytes are initialised; the length is that of the slice in bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        self.out.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(Error::io("write", &self.path))?;
        self.out.get_ref().sync_all().map_err(Error::io("write", &self.path))
    }
}

/// A finished file as a slice.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    map: Option<Mmap>,
    kind: PhantomData<T>,
}

impl<T: Plain> Mapped<T> {
    /// Maps a file that must hold `count` numbers.
    pub(super) fn open(path: &Path, count: u64) -> Result<Self> {
        let file = files::open(path)?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        if Some(bytes) != count.checked_mul(size_of::<T>() as u64) {
            return Err(Error::data(format!("`{}` has {bytes} bytes, not {count} numbers", path.display())));
        }
        let map = if bytes == 0 {
            None
        } else {
            // SAFETY: files of the store are never changed under their final name: they appear by a rename and go by
            // being unlinked, which leaves a mapping whole.
            Some(unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?)
        };
        Ok(Self { map, kind: PhantomData })
    }

    pub(super) fn slice(&self) -> &[T] {
        match &self.map {
            // SAFETY: the mapping begins at a page, which is aligned for `T`; any bytes are a `T`.
            Some(map) => unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<T>(), map.len() / size_of::<T>()) },
            None => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn numbers_come_back_and_wrong_sizes_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        let mut writer = Writer::<u64>::create(path.clone()).unwrap();
        writer.push(&[1, 2]).unwrap();
        writer.push(&[u64::MAX]).unwrap();
        writer.finish().unwrap();
        assert_eq!(Mapped::<u64>::open(&path, 3).unwrap().slice(), [1, 2, u64::MAX]);
        assert!(Mapped::<u64>::open(&path, 4).is_err());
        std::fs::write(&path, b"").unwrap();
        assert!(Mapped::<u32>::open(&path, 0).unwrap().slice().is_empty());
    }

    #[test]
    fn seals_notice_changes_at_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        let mut bytes = vec![7u8; 200_000];
        std::fs::write(&path, &bytes).unwrap();
        let seal = Seal::of(&path).unwrap();
        for at in [0, 199_999] {
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_ne!(Seal::of(&path).unwrap(), seal);
            bytes[at] ^= 1;
        }
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Seal::of(&path).unwrap(), seal);
    }
}
