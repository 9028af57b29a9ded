//! Late interaction: what is found is found on the host, the scores are made of it where the vectors are.

use candle_core::{DType, Device, Result, Tensor};

use crate::ops::late_interaction::{Plan, found_on_host, links, shape};

pub fn late_interaction(queries: &Tensor, documents: &Tensor, plan: &Plan) -> Result<Tensor> {
    let (which, weights) = found_on_host(queries, documents, plan)?;
    let (dtype, device) = (queries.dtype(), queries.device());
    let links = links(plan, &which);
    let missing: Vec<f64> =
        (0..weights.len()).map(|i| if plan.nothing_there(i) { plan.of_nothing(i) } else { 0.0 }).collect();
    let numbers = |values: Vec<f64>| {
        let len = values.len();
        Tensor::from_vec(values, len, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    };
    let sums = match links.is_empty() {
        true => Tensor::zeros(weights.len(), dtype, device)?,
        false => {
            let ids = |of: fn(&(u32, u32, u32)) -> u32| {
                Tensor::from_vec(links.iter().map(of).collect::<Vec<u32>>(), links.len(), device)
            };
            let left = queries.contiguous()?.index_select(&ids(|link| link.1)?, 0)?;
            let right = documents.contiguous()?.index_select(&ids(|link| link.2)?, 0)?;
            let like = left.mul(&right)?.sum(1)?; // [links]
            Tensor::zeros(weights.len(), dtype, device)?.index_add(&ids(|link| link.0)?, &like, 0)?
        }
    };
    debug_assert!(matches!(dtype, DType::F32 | DType::F64));
    sums.mul(&numbers(weights)?)?.add(&numbers(missing)?)?.reshape(shape(plan))
}
