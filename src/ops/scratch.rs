//! Large buffers that are used again: memory fresh from the system costs a page fault for every 4 KiB.
//!
//! Large ones are mappings of their own. One that is too small grows and keeps the pages it has, so that batches of
//! different sizes leave no smaller buffers behind, as an allocator's blocks would be.

use std::sync::{Mutex, PoisonError};

use memmap2::MmapMut;

/// Free buffers. Each kernel holds a few at a time, so there are few.
static FREE: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

/// Gives the free buffers back to the system: after training they would stand beside what saving needs.
pub fn release() {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Words from which on memory is a mapping of its own.
const LARGE: usize = 1 << 15;

/// 64-bit words with unspecified contents.
enum Memory {
    Small(Vec<u64>),
    Large(MmapMut),
}

impl Memory {
    fn new(words: usize) -> Self {
        if words >= LARGE
            && let Ok(map) = MmapMut::map_anon(words * size_of::<u64>())
        {
            return Self::Large(map);
        }
        Self::Small(vec![0; words])
    }

    fn words(&self) -> usize {
        match self {
            Self::Small(words) => words.len(),
            Self::Large(map) => map.len() / size_of::<u64>(),
        }
    }

    fn start(&self) -> *const u64 {
        match self {
            Self::Small(words) => words.as_ptr(),
            // a mapping starts at a page
            Self::Large(map) => map.as_ptr().cast(),
        }
    }

    fn start_mut(&mut self) -> *mut u64 {
        match self {
            Self::Small(words) => words.as_mut_ptr(),
            Self::Large(map) => map.as_mut_ptr().cast(),
        }
    }

    /// At least `words` of them; what is there is kept where the system can do that.
    fn grown(self, words: usize) -> Self {
        #[cfg(target_os = "linux")]
        if let Self::Large(mut map) = self {
            let anywhere = memmap2::RemapOptions::new().may_move(true);
            // SAFETY: nobody holds a reference into a free buffer.
            return match unsafe { map.remap(words * size_of::<u64>(), anywhere) } {
                Ok(()) => Self::Large(map),
                Err(_) => Self::new(words),
            };
        }
        drop(self);
        Self::new(words)
    }
}

/// Types for which any bits are a value.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for u32 {}

/// `len` values with unspecified contents, given back when dropped.
pub struct Buffer<T: Plain> {
    memory: Memory,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// A buffer; what it holds is left over from earlier uses.
    pub fn take(len: usize) -> Self {
        let need = (len * size_of::<T>()).div_ceil(size_of::<u64>());
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // the smallest that is large enough; else the largest grows
        let most = need.saturating_mul(4).max(1024);
        let fits = free.iter().enumerate().filter(|(_, m)| (need..=most).contains(&m.words()));
        let best = fits.min_by_key(|(_, m)| m.words()).map(|(i, _)| i);
        let memory = match best {
            Some(i) => free.swap_remove(i),
            None => {
                let smaller = free.iter().enumerate().filter(|(_, m)| m.words() < need && m.words() * 4 > need);
                let smaller = smaller.max_by_key(|(_, m)| m.words()).map(|(i, _)| i);
                let smaller = smaller.map(|i| free.swap_remove(i));
                drop(free);
                // an eighth more, since batches differ in size; pages that are not touched cost nothing
                let words = need + need / 8;
                smaller.map_or_else(|| Memory::new(words), |memory| memory.grown(words))
            }
        };
        Self { memory, len, element: std::marker::PhantomData }
    }
}

impl<T: Plain> std::ops::Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the words hold `len` values, any bits are a value of T, and u64 is aligned enough.
        unsafe { std::slice::from_raw_parts(self.memory.start().cast(), self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start_mut().cast(), self.len) }
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        const MOST: usize = 256;
        let memory = std::mem::replace(&mut self.memory, Memory::Small(Vec::new()));
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST && memory.words() > 0 {
            free.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let mut a = Buffer::<f32>::take(5000);
        a.fill(3.0);
        assert_eq!(a.len(), 5000);
        drop(a);
        assert_eq!(Buffer::<f64>::take(2000).len(), 2000);
        assert_eq!(Buffer::<u32>::take(0).len(), 0);
    }

    #[test]
    fn large_ones_grow_and_stay_usable() {
        for len in [300_000usize, 320_000, 700_000, 100_000] {
            let mut buffer = Buffer::<f32>::take(len);
            buffer.fill(len as f32);
            assert!(buffer.iter().all(|x| *x == len as f32) && buffer.len() == len);
        }
        let small = Memory::new(10).grown(2 * LARGE);
        assert!(matches!(small, Memory::Large(_)) && small.words() == 2 * LARGE);
    }
}
