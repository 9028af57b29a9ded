//! The update of a layer whose rows have lengths of their own: `W' = m (W + s B A) / |W + s B A|`, row by row, of which
//! the length below the bar is a constant to gradients.
//!
//! Source: Liu et al., "DoRA: weight-decomposed low-rank adaptation" (2024), <https://arxiv.org/abs/2402.09353>, section
//! 4.3 for the constant; as PEFT has it. The layer itself stays as it is: what is added to its result is
//! `dropout(x) (W' - W)ᵀ`, one more product of the layer's size.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::activation::Activation;
use super::adapter::Adapter;
use super::composed;
use super::kernel;
use super::matmul::{self, Matrix, Precision, Target};
use super::param::Param;
use super::real::Real;
use super::scratch::Buffer;

/// `|W + s B A|` of each row, `[out]`.
///
/// # Errors
/// When the matrices do not fit each other.
pub fn lengths(directions: &Tensor) -> Result<Tensor> {
    // a row of zeros has a length that can be divided by
    directions.sqr()?.sum(1)?.sqrt()?.maximum(f64::from(f32::MIN_POSITIVE))
}

/// The update of one pass.
pub struct Dora {
    adapter: Arc<Adapter>,
    magnitude: Arc<Param>,
    /// `W + s B A`, `[out, in]`.
    directions: Tensor,
    /// `[out]`
    lengths: Tensor,
    /// `W' - W`, `[out, in]`.
    update: Tensor,
}

impl Dora {
    /// That of a weight whose adapter has magnitudes.
    pub fn of(weight: &Tensor, adapter: &Arc<Adapter>) -> Result<Option<Self>> {
        let Some(magnitude) = &adapter.magnitude else { return Ok(None) };
        let weight = weight.detach();
        let directions = weight.add(&adapter.product()?.detach())?;
        let lengths = lengths(&directions)?;
        let scales = magnitude.value().detach().div(&lengths)?.unsqueeze(1)?;
        let update = directions.broadcast_mul(&scales)?.sub(&weight)?;
        let (adapter, magnitude) = (Arc::clone(adapter), Arc::clone(magnitude));
        Ok(Some(Self { adapter, magnitude, directions, lengths, update }))
    }

    /// `W' - W`.
    pub fn update(self) -> Tensor {
        self.update
    }

    /// `y += map(x) (W' - W)ᵀ`, to the columns of `y` from `first` on, rows of `width`.
    pub fn forward<T: Real>(
        &self,
        (x, input, map): (&[T], usize, Activation),
        y: &mut [T],
        (first, width): (usize, usize),
        precision: Precision,
    ) -> Result<()> {
        let update = kernel::host(&self.update)?;
        let (x, update): ([&[T]; 1], [&[T]; 1]) = ([x], [update.values::<T>()?]);
        matmul::multiply(
            Matrix::stacked(&x, input).depth_in_rows().mapped(map),
            Matrix::stacked(&update, input).depth_in_rows(),
            Target::new(&mut y[first..], width).adding(true),
            precision,
        );
        Ok(())
    }

    /// `dy (W' - W)` of the layer's columns of `dy`.
    pub fn input_gradient<T: Real>(
        &self,
        dy: &[T],
        (first, width, out): (usize, usize, usize),
        (target, input): (Target<'_, T>, usize),
        precision: Precision,
    ) -> Result<()> {
        let update = kernel::host(&self.update)?;
        let (dy, update): ([&[T]; 1], [&[T]; 1]) = ([dy], [update.values::<T>()?]);
        matmul::multiply(
            Matrix::stacked(&dy, width).columns(first, out).depth_in_rows(),
            Matrix::stacked(&update, input).depth_across_rows(),
            target,
            precision,
        );
        Ok(())
    }

    /// The gradients of A, B and the magnitudes; of `map(x)`.
    pub fn weight_gradient<T: Real>(
        &self,
        (x, input, map): (&[T], usize, Activation),
        dy: &[T],
        (first, width, out): (usize, usize, usize),
        precision: Precision,
    ) -> Result<()> {
        let (x, dy): ([&[T]; 1], [&[T]; 1]) = ([x], [dy]);
        // the gradient by W', `[out, in]`
        let mut whole = Buffer::<T>::take(out * input);
        matmul::multiply(
            Matrix::stacked(&dy, width).columns(first, out).depth_across_rows(),
            Matrix::stacked(&x, input).depth_across_rows().mapped(map),
            Target::new(&mut whole, input),
            precision,
        );
        let (directions, lengths) = (kernel::host(&self.directions)?, kernel::host(&self.lengths)?);
        let (directions, lengths) = (directions.values::<T>()?, lengths.values::<T>()?);
        let mut by_length = kernel::zeros::<T>(out);
        {
            let magnitudes = self.magnitude.host()?;
            let magnitudes = magnitudes.values::<T>()?;
            let scale = T::of(self.adapter.scale);
            let rows = whole.par_chunks_mut(input.max(1)).zip(directions.par_chunks(input.max(1)));
            rows.zip(&mut by_length).enumerate().for_each(|(row, ((whole, directions), by_length))| {
                let mut sum = T::ZERO;
                for (gradient, direction) in whole.iter().zip(directions) {
                    sum += *gradient * *direction;
                }
                *by_length = sum / lengths[row];
                let factor = scale * magnitudes[row] / lengths[row];
                whole.iter_mut().for_each(|gradient| *gradient *= factor);
            });
        }
        self.magnitude.accumulate::<T>(|add, dm| {
            dm.iter_mut().zip(&by_length).for_each(|(dm, new)| *dm = if add { *dm + *new } else { *new });
        })?;
        // now that of `s (B A)`
        let whole: [&[T]; 1] = [&whole];
        let rank = self.adapter.rank();
        let (a, b) = (self.adapter.a.host()?, self.adapter.b.host()?);
        let (a, b): ([&[T]; 1], [&[T]; 1]) = ([a.values::<T>()?], [b.values::<T>()?]);
        self.adapter.b.accumulate::<T>(|add, db| {
            matmul::multiply(
                Matrix::stacked(&whole, input).depth_in_rows(),
                Matrix::stacked(&a, input).depth_in_rows(),
                Target::new(db, rank).adding(add),
                precision,
            );
        })?;
        self.adapter.a.accumulate::<T>(|add, da| {
            matmul::multiply(
                Matrix::stacked(&b, rank).depth_across_rows(),
                Matrix::stacked(&whole, input).depth_across_rows(),
                Target::new(da, input).adding(add),
                precision,
            );
        })
    }
}

/// `x (W' - W)ᵀ` of candle's operations, for `x` `[rows, in]`.
pub fn composed(x: &Tensor, weight: &Tensor, adapter: &Adapter, magnitude: &Param) -> Result<Tensor> {
    let [a, b, magnitude] = [&adapter.a, &adapter.b, magnitude].map(|param| composed::value(param, x));
    let weight = weight.detach();
    let directions = weight.add(&b.matmul(&a)?.affine(adapter.scale, 0.0)?)?;
    let scales = magnitude.div(&lengths(&directions.detach())?)?.unsqueeze(1)?;
    let update = directions.broadcast_mul(&scales)?.sub(&weight)?;
    x.matmul(&update.t()?)
}
