//! TensorBoard's event files, written as its own writer does.
//!
//! A file is a row of records (`TFRecord`): the length in 8 bytes, its checksum, the bytes, their checksum. A checksum is
//! CRC-32C, turned by 15 bits and moved by a constant. Each record is an `Event` in protobuf's wire format: the first says
//! the version, then summaries with scalars or texts. A resumed run begins a new file, whose first summary tells readers
//! to forget what was written from that step on.
//!
//! <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto>

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{End, Record, Start, Tracker, rewritten, variable};
use crate::error::{Error, Result};
use crate::util::files;

/// The file that is written to, once there is one.
#[derive(Debug, Default)]
pub(super) struct TensorBoard {
    open: Option<(PathBuf, BufWriter<File>)>,
}

/// Tells the files of one process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Tracker for TensorBoard {
    fn start(&mut self, start: &Start) -> Result<()> {
        let folder = match variable("TENSORBOARD_LOGGING_DIR") {
            Some(dir) => home(&dir),
            None => start.run_dir.join("tensorboard"),
        };
        files::create_dir(&folder)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("events.out.tfevents.{}.tallow.{}.{number}", now() as u64, std::process::id());
        let path = folder.join(name);
        self.open = Some((path.clone(), BufWriter::new(files::create(&path)?)));
        self.write(&event(0, &text_field(3, "brain.Event:2")))?;
        if let Some(step) = start.resumed_at {
            // SessionLog with status START: what has a later step is of a process that was stopped
            self.write(&event(step + 1, &bytes_field(7, &varint_field(1, 1))))?;
        }
        let config = Value::Object(start.config.clone());
        // four spaces make it a block of code for the text plugin, which reads Markdown
        let text: String = format!("{config:#}").lines().map(|line| format!("    {line}\n")).collect();
        self.write(&event(0, &summary(&text_value("args/text_summary", &text))))
    }

    fn log(&mut self, record: &Record) -> Result<()> {
        let values = record
            .metrics
            .iter()
            .flat_map(|(name, value)| summary_value(&rewritten(name), *value))
            .collect::<Vec<u8>>();
        self.write(&event(record.step, &bytes_field(5, &values)))
    }

    fn finish(&mut self, _: End) -> Result<()> {
        match self.open.take() {
            Some((path, mut file)) => file.flush().map_err(Error::io("write", path)),
            None => Ok(()),
        }
    }
}

impl TensorBoard {
    /// One record, on the disk when this returns: readers follow a run while it goes on.
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let Some((path, file)) = &mut self.open else {
            return Err(Error::Internal("metrics for TensorBoard before its file".to_owned()));
        };
        file.write_all(&framed(data)).and_then(|()| file.flush()).map_err(Error::io("write", path.as_path()))
    }
}

/// `~/x` as the shell reads it.
fn home(dir: &str) -> PathBuf {
    match (dir.strip_prefix("~/"), variable("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(dir),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A record: length, its checksum, data, their checksum; all little-endian.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

/// A checksum that is safe to compute checksums of.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !data.iter().fold(!0, |crc: u32, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

/// `Event { wall_time = 1, step = 2, ... }` with the field that it is about.
fn event(step: u64, what: &[u8]) -> Vec<u8> {
    let mut out = tag(1, 1);
    out.extend(now().to_le_bytes());
    out.extend(varint_field(2, step));
    out.extend(what);
    out
}

/// `Event.summary = 5 { value = 1 }`.
fn summary(value: &[u8]) -> Vec<u8> {
    bytes_field(5, value)
}

/// `Summary.value = 1 { tag = 1, simple_value = 2 }`.
fn summary_value(name: &str, value: f64) -> Vec<u8> {
    let mut own = text_field(1, name);
    own.extend(tag(2, 5));
    own.extend((value as f32).to_le_bytes());
    bytes_field(1, &own)
}

/// `Summary.value = 1 { tag = 1, tensor = 8 { dtype = 1, tensor_shape = 2, string_val = 8 }, metadata = 9 }`, as the text
/// plugin reads it.
fn text_value(name: &str, text: &str) -> Vec<u8> {
    const DT_STRING: u64 = 7;
    let mut tensor = varint_field(1, DT_STRING);
    // of one text: TensorShapeProto { dim = 2 { size = 1 } }
    tensor.extend(bytes_field(2, &bytes_field(2, &varint_field(1, 1))));
    tensor.extend(text_field(8, text));
    let metadata = bytes_field(1, &text_field(1, "text"));
    let mut own = text_field(1, name);
    own.extend(bytes_field(8, &tensor));
    own.extend(bytes_field(9, &metadata));
    bytes_field(1, &own)
}

/// A field's number and wire type: 0 a varint, 1 eight bytes, 2 a length and bytes, 5 four bytes.
fn tag(number: u64, wire: u64) -> Vec<u8> {
    varint(number << 3 | wire)
}

fn varint_field(number: u64, value: u64) -> Vec<u8> {
    [tag(number, 0), varint(value)].concat()
}

fn bytes_field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [tag(number, 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn text_field(number: u64, text: &str) -> Vec<u8> {
    bytes_field(number, text.as_bytes())
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// The records of a file, checksums looked at.
    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = bytes;
        let mut found = Vec::new();
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(number(&rest[8..12]), masked(&rest[..8]));
            let data = &rest[12..12 + length];
            assert_eq!(number(&rest[12 + length..16 + length]), masked(data));
            found.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        found
    }

    /// The fields of a message: number, varint or fixed bits, bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
        fn read(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let (byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = read(&mut bytes);
            let mut fixed = |n: usize| {
                let (own, rest) = bytes.split_at(n);
                bytes = rest;
                own.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
            };
            match key & 7 {
                1 => found.push((key >> 3, fixed(8), Vec::new())),
                5 => found.push((key >> 3, fixed(4), Vec::new())),
                0 => found.push((key >> 3, read(&mut bytes), Vec::new())),
                _ => {
                    let length = read(&mut bytes) as usize;
                    let (own, rest) = bytes.split_at(length);
                    bytes = rest;
                    found.push((key >> 3, 0, own.to_vec()));
                }
            }
        }
        found
    }

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(varint(300), [0xac, 0x02]);
    }

    #[test]
    fn events_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let start = |resumed_at| Start {
            run_dir: dir.path().to_path_buf(),
            resumed_at,
            config: json!({"seed": 12}).as_object().cloned().unwrap(),
            ..Start::default()
        };
        let metrics = vec![("loss".to_owned(), 1.5), ("eval_x".to_owned(), 0.25)];
        for resumed_at in [None, Some(3)] {
            let mut board = TensorBoard::default();
            board.start(&start(resumed_at)).unwrap();
            board.log(&Record { step: 7, metrics: metrics.clone() }).unwrap();
            board.finish(End::Done).unwrap();
        }
        let files = files::list(&dir.path().join("tensorboard")).unwrap();
        assert_eq!(files.len(), 2, "a resumed run begins a new file");
        let mut all: Vec<Vec<Vec<u8>>> = files.iter().map(|file| records(&files::read(file).unwrap())).collect();
        all.sort_by_key(Vec::len);
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(fields(&all[0][0])[2].2, b"brain.Event:2");
        // the mark of a resumed run: step 4, and a session log that says START
        let mark = fields(&all[1][1]);
        assert_eq!((mark[1].1, mark[2].0, fields(&mark[2].2)[0].1), (4, 7, 1));
        let text = fields(&fields(&fields(&all[0][1])[2].2)[0].2);
        assert_eq!(text[0].2, b"args/text_summary");
        assert!(String::from_utf8(fields(&text[1].2)[2].2.clone()).unwrap().contains("\"seed\": 12"));
        let scalars = fields(&all[0][2]);
        assert_eq!((scalars[1].0, scalars[1].1), (2, 7));
        let values: Vec<(String, f32)> = fields(&scalars[2].2)
            .into_iter()
            .map(|(_, _, value)| fields(&value))
            .map(|own| (String::from_utf8(own[0].2.clone()).unwrap(), f32::from_bits(own[1].1 as u32)))
            .collect();
        assert_eq!(values, [("train/loss".to_owned(), 1.5), ("eval/x".to_owned(), 0.25)]);
    }
}
