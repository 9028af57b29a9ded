//! A low-rank update beside the weight of a layer: `y = x Wᵀ + scale * dropout(x) Aᵀ Bᵀ`.
//!
//! Source: Hu et al., "LoRA: low-rank adaptation of large language models" (2021), as PEFT has it. It hangs on the
//! weight's [`Param`], so that every operation with that layer takes it along. With magnitudes the update is that of
//! [`dora`](super::dora), and goes the same way.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use rayon::prelude::*;

use super::activation::Activation;
use super::context::{Context, Dropout};
use super::dora::Dora;
use super::dropout::drop_into;
use super::matmul::{self, Matrix, Precision, Target};
use super::param::Param;
use super::real::Real;
use super::scratch::Buffer;
use super::{activation, composed, dora};

/// How much one task adds at a time.
const CHUNK: usize = 16_384;

/// The two thin matrices of a layer, and the lengths of its rows where these are trained, too.
#[derive(Debug)]
pub struct Adapter {
    /// `[r, in]`
    pub a: Arc<Param>,
    /// `[out, r]`
    pub b: Arc<Param>,
    /// What the product is multiplied with.
    pub scale: f64,
    /// Of the layer's input on this way, in training.
    pub dropout: f64,
    /// `[out]`, of DoRA.
    pub magnitude: Option<Arc<Param>>,
}

impl Adapter {
    /// `scale * B A`, `[out, in]`.
    ///
    /// # Errors
    /// When the matrices do not fit each other.
    pub fn product(&self) -> Result<Tensor> {
        self.b.value().matmul(self.a.value())?.affine(self.scale, 0.0)
    }

    /// What a weight `[out, in]` would have to be changed by.
    ///
    /// # Errors
    /// When the matrices do not fit each other.
    pub fn update(self: &Arc<Self>, weight: &Tensor) -> Result<Tensor> {
        match Dora::of(weight, self)? {
            Some(dora) => Ok(dora.update()),
            None => self.product(),
        }
    }

    /// What is trained of it.
    pub fn params(&self) -> impl Iterator<Item = &Arc<Param>> {
        [&self.a, &self.b].into_iter().chain(&self.magnitude)
    }

    pub(super) fn rank(&self) -> usize {
        self.a.dims().first().copied().unwrap_or(0)
    }
}

/// An adapter in one pass: with the dropout of this place.
pub(super) struct Way {
    adapter: Arc<Adapter>,
    dropout: Dropout,
    /// The layer's own weight.
    weight: Tensor,
    /// Where the kernels compute, of an adapter with magnitudes.
    dora: Option<Dora>,
}

impl Way {
    /// That of a weight which has one.
    pub(super) fn of(weight: &Param, context: &Context) -> Result<Option<Self>> {
        let Some(adapter) = weight.adapter() else { return Ok(None) };
        let (&[out, input], &[r, a_input], &[b_out, b_r]) = (weight.dims(), adapter.a.dims(), adapter.b.dims()) else {
            bail!("`{}` is adapted, and it or its adapter is no matrix", weight.name());
        };
        if a_input != input || b_out != out || r != b_r || r == 0 {
            bail!(
                "`{}` is {:?}, its adapter {:?} and {:?}",
                weight.name(),
                weight.dims(),
                adapter.a.dims(),
                adapter.b.dims()
            );
        }
        if let Some(magnitude) = adapter.magnitude.as_ref().filter(|magnitude| magnitude.dims() != [out]) {
            bail!("`{}` is {:?}, its magnitudes {:?}", weight.name(), weight.dims(), magnitude.dims());
        }
        let dropout = context.named_dropout(weight.name(), adapter.dropout);
        let dora = if weight.composed() { None } else { Dora::of(weight.value(), adapter)? };
        Ok(Some(Self { adapter: Arc::clone(adapter), dropout, weight: weight.value().clone(), dora }))
    }

    fn rank(&self) -> usize {
        self.adapter.rank()
    }

    /// `dropout(map(x))` where something is dropped.
    fn dropped<T: Real>(&self, x: &[T], map: Activation) -> Option<Buffer<T>> {
        self.dropout.active().then(|| {
            let mut dropped = Buffer::take(x.len());
            if map == Activation::Identity {
                drop_into(self.dropout, x, &mut dropped);
            } else {
                let mut mapped = Buffer::take(x.len());
                activation::forward_parallel(map, x, &mut mapped);
                drop_into(self.dropout, &mapped, &mut dropped);
            }
            dropped
        })
    }

    /// `scale * dropout(map(x)) Aᵀ`, `[tokens, r]`, and the input that it was made of where something was dropped.
    fn narrow<T: Real>(
        &self,
        x: &[T],
        input: usize,
        map: Activation,
        precision: Precision,
    ) -> Result<(Buffer<T>, Option<Buffer<T>>)> {
        let tokens = x.len() / input.max(1);
        let mut narrow = Buffer::take(tokens * self.rank());
        let dropped = self.dropped(x, map);
        {
            let seen: [&[T]; 1] = [dropped.as_ref().map_or(x, |dropped| dropped)];
            let map = if dropped.is_some() { Activation::Identity } else { map };
            let a = self.adapter.a.host()?;
            let a: [&[T]; 1] = [a.values::<T>()?];
            matmul::multiply(
                Matrix::stacked(&seen, input).depth_in_rows().mapped(map),
                Matrix::stacked(&a, input).depth_in_rows(),
                Target::new(&mut narrow, self.rank()),
                precision,
            );
        }
        let scale = T::of(self.adapter.scale);
        narrow.iter_mut().for_each(|value| *value *= scale);
        Ok((narrow, dropped))
    }

    /// Adds this way's part to the layer's columns of `y`, rows of `width`.
    pub(super) fn forward<T: Real>(
        &self,
        (x, input, map): (&[T], usize, Activation),
        y: &mut [T],
        (first, width): (usize, usize),
        precision: Precision,
    ) -> Result<()> {
        if y.is_empty() {
            return Ok(());
        }
        if let Some(dora) = &self.dora {
            let dropped = self.dropped(x, map);
            let map = if dropped.is_some() { Activation::Identity } else { map };
            return dora.forward((dropped.as_deref().unwrap_or(x), input, map), y, (first, width), precision);
        }
        let (narrow, _) = self.narrow(x, input, map, precision)?;
        let b = self.adapter.b.host()?;
        let (narrow, b): ([&[T]; 1], [&[T]; 1]) = ([&narrow], [b.values::<T>()?]);
        matmul::multiply(
            Matrix::stacked(&narrow, self.rank()).depth_in_rows(),
            Matrix::stacked(&b, self.rank()).depth_in_rows(),
            Target::new(&mut y[first..], width).adding(true),
            precision,
        );
        Ok(())
    }

    /// `scale * dy B`, `[tokens, r]`, of the layer's columns of `dy`.
    fn narrow_gradient<T: Real>(
        &self,
        dy: &[T],
        (first, width, out): (usize, usize, usize),
        precision: Precision,
    ) -> Result<Buffer<T>> {
        let mut narrow = Buffer::take(dy.len() / width.max(1) * self.rank());
        let b = self.adapter.b.host()?;
        let (dy, b): ([&[T]; 1], [&[T]; 1]) = ([dy], [b.values::<T>()?]);
        matmul::multiply(
            Matrix::stacked(&dy, width).columns(first, out).depth_in_rows(),
            Matrix::stacked(&b, self.rank()).depth_across_rows(),
            Target::new(&mut narrow, self.rank()),
            precision,
        );
        let scale = T::of(self.adapter.scale);
        narrow.iter_mut().for_each(|value| *value *= scale);
        Ok(narrow)
    }

    /// The gradients of A and B, and of magnitudes.
    pub(super) fn weight_gradient<T: Real>(
        &self,
        (x, input, map): (&[T], usize, Activation),
        dy: &[T],
        place: (usize, usize, usize),
        precision: Precision,
    ) -> Result<()> {
        if let Some(dora) = &self.dora {
            let dropped = self.dropped(x, map);
            let map = if dropped.is_some() { Activation::Identity } else { map };
            return dora.weight_gradient((dropped.as_deref().unwrap_or(x), input, map), dy, place, precision);
        }
        let (narrow, dropped) = self.narrow(x, input, map, precision)?;
        let d_narrow = self.narrow_gradient(dy, place, precision)?;
        let (first, width, out) = place;
        let (rank, all): (usize, [&[T]; 1]) = (self.rank(), [dy]);
        let narrow: [&[T]; 1] = [&narrow];
        self.adapter.b.accumulate::<T>(|add, db| {
            matmul::multiply(
                Matrix::stacked(&all, width).columns(first, out).depth_across_rows(),
                Matrix::stacked(&narrow, rank).depth_across_rows(),
                Target::new(db, rank).adding(add),
                precision,
            );
        })?;
        let seen: [&[T]; 1] = [dropped.as_ref().map_or(x, |dropped| dropped)];
        let map = if dropped.is_some() { Activation::Identity } else { map };
        let d_narrow: [&[T]; 1] = [&d_narrow];
        self.adapter.a.accumulate::<T>(|add, da| {
            matmul::multiply(
                Matrix::stacked(&d_narrow, rank).depth_across_rows(),
                Matrix::stacked(&seen, input).depth_across_rows().mapped(map),
                Target::new(da, input).adding(add),
                precision,
            );
        })
    }

    /// This way's part of the gradient of `map(x)`, written to `dx` or added to it.
    pub(super) fn input_gradient<T: Real>(
        &self,
        dy: &[T],
        place: (usize, usize, usize),
        (dx, input, add): (&mut [T], usize, bool),
        precision: Precision,
    ) -> Result<()> {
        let product = |target: Target<'_, T>| {
            if let Some(dora) = &self.dora {
                return dora.input_gradient(dy, place, (target, input), precision);
            }
            let d_narrow = self.narrow_gradient(dy, place, precision)?;
            let a = self.adapter.a.host()?;
            let (d_narrow, a): ([&[T]; 1], [&[T]; 1]) = ([&d_narrow], [a.values::<T>()?]);
            matmul::multiply(
                Matrix::stacked(&d_narrow, self.rank()).depth_in_rows(),
                Matrix::stacked(&a, input).depth_across_rows(),
                target,
                precision,
            );
            Ok(())
        };
        if !self.dropout.active() {
            return product(Target::new(dx, input).adding(add));
        }
        let mut whole = Buffer::take(dx.len());
        product(Target::new(&mut whole, input))?;
        if !add {
            drop_into(self.dropout, &whole, dx);
            return Ok(());
        }
        let mut kept = Buffer::take(dx.len());
        drop_into(self.dropout, &whole, &mut kept);
        let (dx, kept) = (dx.par_chunks_mut(CHUNK), kept.par_chunks(CHUNK));
        dx.zip(kept).for_each(|(dx, kept)| dx.iter_mut().zip(kept).for_each(|(dx, kept)| *dx += *kept));
        Ok(())
    }

    /// This way's part of the layer's output, of candle's operations.
    pub(super) fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let x = if self.dropout.active() { composed::dropout(x, self.dropout)? } else { x.clone() };
        if let Some(magnitude) = &self.adapter.magnitude {
            return dora::composed(&x, &self.weight, &self.adapter, magnitude);
        }
        let through = |x: &Tensor, weight: &Param| x.matmul(&composed::value(weight, x).t()?);
        through(&through(&x, &self.adapter.a)?, &self.adapter.b)?.affine(self.adapter.scale, 0.0)
    }
}

/// Names end in it where a layer has an adapter.
pub const A: &str = "lora_A.weight";
/// As [`A`].
pub const B: &str = "lora_B.weight";
/// As [`A`], where it has magnitudes.
pub const MAGNITUDE: &str = "lora_magnitude_vector";
