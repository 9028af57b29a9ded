//! Large buffers that are used again: memory fresh from the system costs a page fault for every 4 KiB.

use std::sync::{Mutex, PoisonError};

/// Free buffers, of 64-bit words. Each kernel holds a few at a time, so there are few.
static FREE: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());

/// Types for which any bits are a value.
pub trait Plain: Copy + Send + Sync + 'static {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for u32 {}

/// `len` values with unspecified contents, given back when dropped.
pub struct Buffer<T: Plain> {
    words: Vec<u64>,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// A buffer; what it holds is left over from earlier uses.
    pub fn take(len: usize) -> Self {
        let need = (len * size_of::<T>()).div_ceil(size_of::<u64>());
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // the smallest that is large enough; else the largest gives way to a new one, so that sizes follow the need
        let fits =
            free.iter().enumerate().filter(|(_, b)| b.len() >= need && b.len() <= need.saturating_mul(4).max(1024));
        let best = fits.min_by_key(|(_, b)| b.len()).map(|(i, _)| i);
        let words = match best {
            Some(i) => free.swap_remove(i),
            None => {
                let smaller = free.iter().enumerate().filter(|(_, b)| b.len() < need);
                if let Some(i) = smaller.max_by_key(|(_, b)| b.len()).map(|(i, _)| i) {
                    free.swap_remove(i);
                }
                drop(free);
                // an eighth more, since batches differ in size
                vec![0; need + need / 8]
            }
        };
        Self { words, len, element: std::marker::PhantomData }
    }
}

impl<T: Plain> std::ops::Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the words hold `len` values, any bits are a value of T, and u64 is aligned enough.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        const MOST: usize = 256;
        let words = std::mem::take(&mut self.words);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST && !words.is_empty() {
            free.push(words);
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
}
