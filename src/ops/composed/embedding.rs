//! Rows of tables: summed per token, or averaged per sequence. A table's gradient is dense here.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::pool::{Share, sum_by_sequence};
use super::value;
use crate::ops::context::Context;
use crate::ops::param::Param;

pub fn embedding_sum(context: &Context, tables: &[(&Arc<Param>, Arc<Vec<u32>>)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (table, ids) in tables {
        let rows = rows(context, table, ids)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&rows)?,
            None => rows,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("embedding: no table"),
    }
}

pub fn embedding_bag_mean(context: &Context, table: &Arc<Param>, ids: &[u32], offsets: &[u32]) -> Result<Tensor> {
    let mut shares = Vec::with_capacity(ids.len());
    for (sequence, w) in offsets.windows(2).enumerate() {
        let weight = 1.0 / f64::from(w[1] - w[0]);
        shares.extend((w[0]..w[1]).map(|token| Share { token, sequence: sequence as u32, weight }));
    }
    sum_by_sequence(&rows(context, table, ids)?, shares, offsets.len() - 1)
}

/// A row of the table for each id, hanging on the graph in training whether the table is frozen or not.
fn rows(context: &Context, table: &Param, ids: &[u32]) -> Result<Tensor> {
    let root = context.root(table.dtype())?;
    let table = value(table, &root);
    let rows = if ids.is_empty() {
        Tensor::zeros((0, table.dim(1)?), table.dtype(), table.device())?
    } else {
        table.index_select(&Tensor::from_slice(ids, ids.len(), table.device())?, 0)?
    };
    if root.track_op() && !rows.track_op() && !ids.is_empty() {
        return rows.broadcast_add(&root.to_device(rows.device())?);
    }
    Ok(rows)
}
