//! Parameters of a network out of its checkpoint.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;
use crate::model::weights::Weights;
use crate::ops::Param;

/// A weight and its bias.
#[derive(Clone)]
pub struct Dense {
    pub weight: Arc<Param>,
    pub bias: Arc<Param>,
}

impl Dense {
    pub fn pair(&self) -> (&Arc<Param>, &Arc<Param>) {
        (&self.weight, &self.bias)
    }
}

/// A weight, and its bias where there is one.
pub struct Linear {
    pub weight: Arc<Param>,
    pub bias: Option<Arc<Param>>,
}

/// What became of a checkpoint's tensors.
#[derive(Clone)]
pub struct Tensors {
    /// Parameters, by their names there.
    pub named: Vec<(String, Arc<Param>)>,
    /// Those that the network does not use (a pooler, a classifier), in f32.
    pub unused: Vec<(String, Tensor)>,
}

/// Takes parameters out of a checkpoint and keeps the list of their names.
pub struct Loader<'a> {
    weights: Weights,
    prefix: &'a str,
    named: Vec<(String, Arc<Param>)>,
}

impl<'a> Loader<'a> {
    /// `prefix` stands before the parameters' names in messages and optimizer.
    pub fn new(weights: Weights, prefix: &'a str) -> Self {
        Self { weights, prefix, named: Vec::new() }
    }

    /// One parameter.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    pub fn param(&mut self, name: &str, shape: &[usize]) -> Result<Arc<Param>> {
        let param = self.weights.take(self.prefix, name, shape)?;
        self.named.push((name.to_owned(), Arc::clone(&param)));
        Ok(param)
    }

    /// A layer, `[out, input]` and `[out]`.
    ///
    /// # Errors
    /// As [`Loader::param`].
    pub fn dense(&mut self, name: &str, out: usize, input: usize) -> Result<Dense> {
        Ok(Dense {
            weight: self.param(&format!("{name}.weight"), &[out, input])?,
            bias: self.param(&format!("{name}.bias"), &[out])?,
        })
    }

    /// A normalisation, `[width]` and `[width]`.
    ///
    /// # Errors
    /// As [`Loader::param`].
    pub fn norm(&mut self, name: &str, width: usize) -> Result<Dense> {
        Ok(Dense {
            weight: self.param(&format!("{name}.weight"), &[width])?,
            bias: self.param(&format!("{name}.bias"), &[width])?,
        })
    }

    /// A layer that may have no bias.
    ///
    /// # Errors
    /// As [`Loader::param`].
    pub fn linear(&mut self, name: &str, out: usize, input: usize, bias: bool) -> Result<Linear> {
        Ok(Linear {
            weight: self.param(&format!("{name}.weight"), &[out, input])?,
            bias: bias.then(|| self.param(&format!("{name}.bias"), &[out])).transpose()?,
        })
    }

    /// A normalisation that may have no bias: then zeros that are neither trained nor saved stand for it.
    ///
    /// # Errors
    /// As [`Loader::param`].
    pub fn norm_with(&mut self, name: &str, width: usize, bias: bool) -> Result<Dense> {
        if bias {
            return self.norm(name, width);
        }
        let weight = self.param(&format!("{name}.weight"), &[width])?;
        Ok(Dense { weight, bias: self.weights.zeros(self.prefix, &format!("{name}.bias"), width)? })
    }

    /// Every parameter that was taken with its name, and the tensors that nobody took.
    pub fn finish(self) -> Tensors {
        Tensors { named: self.named, unused: self.weights.rest() }
    }
}
