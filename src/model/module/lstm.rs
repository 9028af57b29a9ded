//! A recurrent network over a text's tokens (Hochreiter & Schmidhuber, 1997), in one direction or both.
//!
//! All sequences take a step together, the longest first, so that those that have ended are the last rows and drop out.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Tensor, bail};
use serde_json::json;

use super::{Config, Features, Module, Source, tensors, write_json};
use crate::error::Result;
use crate::flow::PackedBatch;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Activation, Context, Param, Selection};

const CONFIG: &str = "lstm_config.json";

/// One direction of one layer.
struct Cell {
    name: String,
    from_input: (Arc<Param>, Arc<Param>),
    from_state: (Arc<Param>, Arc<Param>),
}

/// Layers of one or two directions.
pub struct Lstm {
    layers: Vec<Vec<Cell>>,
    input: usize,
    hidden: usize,
    dropout: f64,
}

impl Cell {
    /// Takes the tensors whose names end in `name`, as torch calls them.
    fn take(weights: &mut Weights, prefix: &str, name: String, input: usize, hidden: usize) -> Result<Self> {
        let mut take = |what: &str, shape: &[usize]| weights.take(prefix, &format!("encoder.{what}_{name}"), shape);
        Ok(Self {
            from_input: (take("weight_ih", &[4 * hidden, input])?, take("bias_ih", &[4 * hidden])?),
            from_state: (take("weight_hh", &[4 * hidden, hidden])?, take("bias_hh", &[4 * hidden])?),
            name,
        })
    }

    /// The state after every token: `x` `[tokens, input]`, the result `[tokens, hidden]`.
    fn forward(&self, x: &Tensor, order: &Order, context: &Context) -> candle_core::Result<Tensor> {
        let gates = ops::linear(context, x, &self.from_input.0, Some(&self.from_input.1))?;
        let gates = order.steps.of(&gates)?;
        let hidden = gates.dim(1)? / 4;
        let mut state: Option<(Tensor, Tensor)> = None;
        let (mut outputs, mut start) = (Vec::with_capacity(order.running.len()), 0);
        for running in &order.running {
            let mut gate = gates.narrow(0, start, *running)?;
            start += running;
            if let Some((h, c)) = &state {
                state = Some((h.narrow(0, 0, *running)?, c.narrow(0, 0, *running)?));
            }
            let from_state = match &state {
                Some((h, _)) => h.clone(),
                // part of the graph, or the first step would give its bias no gradient
                None => context.attach(&Tensor::zeros((*running, hidden), x.dtype(), x.device())?)?,
            };
            gate = gate.add(&ops::linear(context, &from_state, &self.from_state.0, Some(&self.from_state.1))?)?;
            let part = |i: usize, activation| ops::activation(&gate.narrow(1, i * hidden, hidden)?, activation);
            let new = part(0, Activation::Sigmoid)?.mul(&part(2, Activation::Tanh)?)?;
            let c = match &state {
                Some((_, c)) => part(1, Activation::Sigmoid)?.mul(c)?.add(&new)?,
                None => new,
            };
            let h = part(3, Activation::Sigmoid)?.mul(&ops::activation(&c, Activation::Tanh)?)?;
            outputs.push(h.clone());
            state = Some((h, c));
        }
        order.steps.inverse().of(&Tensor::cat(&outputs, 0)?)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        let named = |what: &str, param: &Arc<Param>| (format!("encoder.{what}_{}", self.name), Arc::clone(param));
        vec![
            named("weight_ih", &self.from_input.0),
            named("weight_hh", &self.from_state.0),
            named("bias_ih", &self.from_input.1),
            named("bias_hh", &self.from_state.1),
        ]
    }
}

/// Tokens by steps: the first of every sequence, then the second of those that have one, ...
struct Order {
    steps: Selection,
    running: Vec<usize>,
}

impl Order {
    fn new(batch: &PackedBatch, backwards: bool, device: &candle_core::Device) -> candle_core::Result<Self> {
        let mut sequences: Vec<(u32, u32)> = batch.offsets.windows(2).map(|w| (w[0], w[1])).collect();
        sequences.sort_by_key(|(start, end)| std::cmp::Reverse(end - start));
        let (mut ids, mut running) = (Vec::with_capacity(batch.tokens()), Vec::new());
        for step in 0..batch.longest() as u32 {
            let before = ids.len();
            let now = sequences.iter().take_while(|(start, end)| end - start > step);
            ids.extend(now.map(|(start, end)| if backwards { end - 1 - step } else { start + step }));
            running.push(ids.len() - before);
        }
        Ok(Self { steps: Selection::new(ids, batch.tokens(), device)?, running })
    }
}

impl Lstm {
    /// Reads the folder's lstm_config.json and model.safetensors.
    ///
    /// # Errors
    /// When a file or key is missing.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, CONFIG)?;
        let input = config.size(&["embedding_dimension", "word_embedding_dimension"])?;
        let hidden = config.size(&["hidden_dim"])?;
        let count = if config.get(&["num_layers"]).is_some() { config.size(&["num_layers"])? } else { 1 };
        let dropout = source.options.dropout.unwrap_or(config.number("dropout", 0.0)?);
        if !(0.0..=1.0).contains(&dropout) {
            return Err(config.bad(format!("`dropout` is {dropout}")).with_hint("give a probability from 0 to 1"));
        }
        let ends: &[&str] = if config.flag("bidirectional", true)? { &["", "_reverse"] } else { &[""] };
        let mut weights = Weights::load(source.directory, source.device)?;
        let mut layers = Vec::with_capacity(count);
        for i in 0..count {
            let width = if i == 0 { input } else { hidden * ends.len() };
            let take = |end: &&str| Cell::take(&mut weights, source.prefix, format!("l{i}{end}"), width, hidden);
            layers.push(ends.iter().map(take).collect::<Result<Vec<_>>>()?);
        }
        Ok(Self { layers, input, hidden, dropout })
    }

    fn directions(&self) -> usize {
        self.layers.first().map_or(1, Vec::len)
    }

    fn apply(&self, x: &Tensor, batch: &PackedBatch, context: &Context) -> candle_core::Result<Tensor> {
        if batch.tokens() == 0 {
            return Tensor::zeros((0, self.hidden * self.directions()), x.dtype(), x.device());
        }
        let orders =
            (0..self.directions()).map(|i| Order::new(batch, i == 1, x.device())).collect::<Result<Vec<_>, _>>()?;
        let mut x = x.clone();
        for (i, cells) in self.layers.iter().enumerate() {
            if i > 0 {
                x = ops::dropout(&x, context.dropout(self.dropout))?;
            }
            let both = cells
                .iter()
                .zip(&orders)
                .map(|(cell, order)| cell.forward(&x, order, context))
                .collect::<candle_core::Result<Vec<_>>>()?;
            x = match both.as_slice() {
                [one] => one.clone(),
                [] => bail!("LSTM: a layer without a direction"),
                several => Tensor::cat(several, 1)?,
            };
        }
        Ok(x)
    }
}

impl Module for Lstm {
    fn name(&self) -> &'static str {
        "LSTM"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let y = self.apply(features.tokens(self.name())?, &features.batch, context)?;
        features.token_embeddings = Some(y);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        self.layers.iter().flatten().flat_map(Cell::params).collect()
    }

    fn activation_floats(&self) -> usize {
        20 * self.hidden * self.directions() * self.layers.len()
    }

    fn input_dimension(&self) -> Option<usize> {
        Some(self.input)
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.hidden * self.directions()
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(
            &directory.join(CONFIG),
            &json!({
                "word_embedding_dimension": self.input,
                "hidden_dim": self.hidden,
                "num_layers": self.layers.len(),
                "dropout": self.dropout,
                "bidirectional": self.directions() == 2,
            }),
        )?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
