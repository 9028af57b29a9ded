//! Late interaction: scores of texts that have a vector for each token.
//!
//! Every vector of a query looks for the vector of a document that is most like it, and a score is the sum of what was
//! found. The way back goes through what was found alone, so of the products of all vectors with all nothing is kept
//! but, for each vector of a query and each document, one number.
//!
//! Sources: Khattab and Zaharia 2020, "ColBERT", <https://arxiv.org/abs/2004.12832>; Lee et al. 2023, "Rethinking the
//! Role of Token Retrieval in Multi-Vector Retrieval" (XTR), <https://arxiv.org/abs/2304.01982>; `util/similarity.py`
//! and `multi_vector_encoder/scoring` of sentence-transformers.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::composed;
use super::kernel::{self, Shared, by_dtype, simd_fn};
use super::matmul::{self, Matrix, Precision, Target};
use super::real::{Real, max_of};
use super::scratch::Buffer;

/// How what a query's vectors found becomes a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateInteraction {
    /// The sum over the query's vectors of the largest dot product with a vector of the document.
    MaxSim,
    /// That divided by how many vectors the query has.
    MeanMaxSim,
    /// The sum over those vectors of the query that found one of the document's among their `top_k` of all documents,
    /// divided by how many did.
    Xtr { top_k: usize },
}

/// Which documents a query is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// All.
    All,
    /// The one with its number.
    Same,
}

/// What a document without a vector scores: below any other, and finite when scaled and squared.
pub const EMPTY_DOCUMENT: f64 = -1e9;

/// The scores of queries and documents, of which each has a vector a token.
///
/// # Shapes
/// `queries` `[vectors, dim]` with `query_offsets` `[n + 1]`, `documents` `[vectors, dim]` with `document_offsets`
/// `[m + 1]`; the result is `[n, m]` of [`Pairs::All`] and `[n]` of [`Pairs::Same`], where `n = m`.
///
/// # Errors
/// When shapes, offsets or element types do not fit.
pub fn late_interaction(
    (queries, query_offsets): (&Tensor, &Arc<Vec<u32>>),
    (documents, document_offsets): (&Tensor, &Arc<Vec<u32>>),
    scoring: LateInteraction,
    pairs: Pairs,
) -> Result<Tensor> {
    let (&[q, width], &[d, other]) = (queries.dims(), documents.dims()) else {
        bail!("late interaction: shapes are {:?} and {:?}", queries.dims(), documents.dims());
    };
    if width != other {
        bail!("late interaction: shapes are {:?} and {:?}", queries.dims(), documents.dims());
    }
    kernel::check_offsets("late interaction", query_offsets, q)?;
    kernel::check_offsets("late interaction", document_offsets, d)?;
    kernel::check_dtype("late interaction", documents.dtype(), queries.dtype())?;
    if pairs == Pairs::Same && query_offsets.len() != document_offsets.len() {
        bail!("late interaction: {} queries and {} documents", query_offsets.len() - 1, document_offsets.len() - 1);
    }
    let plan =
        Plan { queries: Arc::clone(query_offsets), documents: Arc::clone(document_offsets), scoring, pairs, width };
    if composed::wanted(queries) {
        return composed::late_interaction(queries, documents, &plan);
    }
    queries.contiguous()?.apply_op2(&documents.contiguous()?, Late { plan, found: Mutex::new(None) })
}

/// The same of host values, without a graph: `[n, m]`.
pub fn late_interaction_scores(
    (queries, query_offsets): (&[f32], &[u32]),
    (documents, document_offsets): (&[f32], &[u32]),
    width: usize,
    scoring: LateInteraction,
) -> Vec<f32> {
    let plan = Plan {
        queries: Arc::new(query_offsets.to_vec()),
        documents: Arc::new(document_offsets.to_vec()),
        scoring,
        pairs: Pairs::All,
        width,
    };
    rayon::scope(|_| plan.scores(&plan.find(queries, documents)))
}

/// What is compared with what.
pub(super) struct Plan {
    pub queries: Arc<Vec<u32>>,
    pub documents: Arc<Vec<u32>>,
    pub scoring: LateInteraction,
    pub pairs: Pairs,
    pub width: usize,
}

/// What the vectors of queries found.
pub(super) struct Found<T> {
    /// `[query vectors, candidates]`: the number of a document's vector, [`NOBODY`] for none.
    pub which: Vec<u32>,
    /// `[query vectors, candidates]`: how like it is.
    like: Vec<T>,
    /// `[queries, candidates]`: what a sum is multiplied with.
    pub weights: Vec<T>,
}

/// No vector was found.
pub(super) const NOBODY: u32 = u32::MAX;
/// Products of vectors that are in memory at a time.
const AT_ONCE: usize = 1 << 21;
/// Vectors of queries that a thread takes at a time.
const ROWS: usize = 8;

simd_fn! {
    /// The first of the largest values, and it; of values of which one is no number, that.
    fn largest<T>(row: &[T]) -> (usize, T) {
        let mut sum = T::ZERO;
        for x in row {
            // infinite values stay infinite, what is no number stays so
            sum += *x * T::ZERO;
        }
        let top = max_of(row);
        if !sum.is_finite() {
            return (0, T::of(f64::NAN));
        }
        let mut at = 0;
        for (i, x) in row.iter().enumerate().rev() {
            at = if *x == top { i } else { at };
        }
        (at, top)
    }
}

simd_fn! {
    fn add_scaled<T>(target: &mut [T], values: &[T], scale: T) {
        for (a, b) in target.iter_mut().zip(values) {
            *a += *b * scale;
        }
    }
}

fn ends(offsets: &[u32], i: usize) -> std::ops::Range<usize> {
    offsets[i] as usize..offsets[i + 1] as usize
}

impl Plan {
    fn n(&self) -> usize {
        self.queries.len() - 1
    }

    fn m(&self) -> usize {
        self.documents.len() - 1
    }

    /// How many documents a query is compared with.
    pub fn candidates(&self) -> usize {
        if self.pairs == Pairs::All { self.m() } else { 1 }
    }

    /// The query and the document of a score.
    fn pair(&self, score: usize) -> (usize, usize) {
        match self.pairs {
            Pairs::All => (score / self.m().max(1), score % self.m().max(1)),
            Pairs::Same => (score, score),
        }
    }

    /// Fills in what the vectors of queries find.
    pub fn find<T: Real>(&self, queries: &[T], documents: &[T]) -> Found<T> {
        let vectors = self.queries.last().copied().unwrap_or(0) as usize;
        let candidates = self.candidates();
        let mut found = Found {
            which: vec![NOBODY; vectors * candidates],
            like: vec![T::ZERO; vectors * candidates],
            weights: vec![T::ONE; self.n() * candidates],
        };
        match (self.scoring, self.pairs) {
            // which vectors are found depends on all documents, whichever is asked for
            (LateInteraction::Xtr { top_k }, _) => {
                self.blocks(
                    queries,
                    documents,
                    0..vectors,
                    0..self.m(),
                    |i, row, found| {
                        self.retrieve(i, row, top_k, found);
                    },
                    &mut found,
                );
            }
            (_, Pairs::All) => {
                let mut first = 0;
                while first < self.m() {
                    let start = self.documents[first] as usize;
                    // as many documents as leave room for the products of some hundred vectors
                    let fits = self.documents[first..].partition_point(|o| (*o as usize - start) * 256 <= AT_ONCE);
                    let end = (first + fits.saturating_sub(1)).clamp(first + 1, self.m());
                    self.blocks(
                        queries,
                        documents,
                        0..vectors,
                        first..end,
                        |i, row, found| {
                            self.nearest(i, row, first..end, found);
                        },
                        &mut found,
                    );
                    first = end;
                }
            }
            (_, Pairs::Same) => {
                for pair in 0..self.n() {
                    self.blocks(
                        queries,
                        documents,
                        ends(&self.queries, pair),
                        pair..pair + 1,
                        |i, row, found| {
                            self.nearest(i, row, pair..pair + 1, found);
                        },
                        &mut found,
                    );
                }
            }
        }
        self.weigh(&mut found);
        found
    }

    /// Hands `each` the dot products of a query's vector with the vectors of some documents, vector by vector, with the
    /// places of what it finds.
    fn blocks<T: Real>(
        &self,
        queries: &[T],
        documents: &[T],
        vectors: std::ops::Range<usize>,
        range: std::ops::Range<usize>,
        each: impl Fn(usize, &[T], (&mut [u32], &mut [T])) + Sync,
        found: &mut Found<T>,
    ) {
        let (from, to) = (self.documents[range.start] as usize, self.documents[range.end] as usize);
        let (columns, width, candidates) = (to - from, self.width, self.candidates());
        if columns == 0 || vectors.is_empty() {
            return;
        }
        let right = [&documents[from * width..to * width]];
        let rows = (AT_ONCE / columns).max(1).min(vectors.len());
        let mut products = Buffer::<T>::take(rows * columns);
        let (which, like) = (Shared::new(&mut found.which), Shared::new(&mut found.like));
        for start in vectors.clone().step_by(rows) {
            let end = vectors.end.min(start + rows);
            let left = [&queries[start * width..end * width]];
            let products = &mut products[..(end - start) * columns];
            matmul::multiply(
                Matrix::stacked(&left, width).depth_in_rows(),
                Matrix::stacked(&right, width).depth_in_rows(),
                Target::new(products, columns),
                Precision::Full,
            );
            let products = &*products;
            kernel::each(end - start, ROWS, |i| {
                let vector = start + i;
                // SAFETY: each vector has its own places.
                let places = unsafe {
                    (which.range(vector * candidates, candidates), like.range(vector * candidates, candidates))
                };
                each(vector, &products[i * columns..(i + 1) * columns], places);
            });
        }
    }

    /// What a vector finds in each of some documents, whose products `row` holds.
    fn nearest<T: Real>(
        &self,
        _: usize,
        row: &[T],
        range: std::ops::Range<usize>,
        (which, like): (&mut [u32], &mut [T]),
    ) {
        let from = self.documents[range.start] as usize;
        for document in range {
            let part = ends(&self.documents, document);
            if part.is_empty() {
                continue;
            }
            let place = if self.pairs == Pairs::All { document } else { 0 };
            let (at, top) = largest(&row[part.start - from..part.end - from]);
            which[place] = (part.start + at) as u32;
            like[place] = top;
        }
    }

    /// What a vector finds among its `top_k` of all documents' vectors, whose products `row` holds.
    fn retrieve<T: Real>(&self, vector: usize, row: &[T], top_k: usize, (which, like): (&mut [u32], &mut [T])) {
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        let value = |i: &u32| row[*i as usize];
        if top_k < row.len() {
            // what is no number comes first, so that it is seen
            let key = |i: &u32| (!value(i).is_nan(), -value(i).to_f64());
            order.select_nth_unstable_by(top_k, |a, b| {
                let ((a_nan, a_key), (b_nan, b_key)) = (key(a), key(b));
                a_nan.cmp(&b_nan).then(a_key.total_cmp(&b_key)).then(a.cmp(b))
            });
            order.truncate(top_k);
        }
        let own = self.queries.partition_point(|offset| *offset as usize <= vector).saturating_sub(1);
        for i in order {
            let document = self.documents.partition_point(|offset| *offset <= i).saturating_sub(1);
            let place = match self.pairs {
                Pairs::All => document,
                Pairs::Same if document == own => 0,
                Pairs::Same => continue,
            };
            let x = value(&i);
            let better =
                which[place] == NOBODY || x.is_nan() || x > like[place] || (x == like[place] && i < which[place]);
            if better && !like[place].is_nan() {
                which[place] = i;
                like[place] = x;
            }
        }
    }

    /// What each sum is multiplied with.
    fn weigh<T: Real>(&self, found: &mut Found<T>) {
        let candidates = self.candidates();
        if self.scoring == LateInteraction::MaxSim {
            return;
        }
        for score in 0..found.weights.len() {
            let (query, place) = (score / candidates.max(1), score % candidates.max(1));
            let vectors = ends(&self.queries, query);
            let count = match self.scoring {
                LateInteraction::Xtr { .. } => {
                    vectors.filter(|vector| found.which[vector * candidates + place] != NOBODY).count()
                }
                _ => vectors.len(),
            };
            found.weights[score] = T::of(1.0 / count.max(1) as f64);
        }
    }

    /// Whether a score's document has no vector.
    pub fn nothing_there(&self, score: usize) -> bool {
        ends(&self.documents, self.pair(score).1).is_empty()
    }

    /// What a score without a vector of a document is.
    pub fn of_nothing(&self, score: usize) -> f64 {
        match self.scoring {
            LateInteraction::MeanMaxSim => EMPTY_DOCUMENT / ends(&self.queries, self.pair(score).0).len().max(1) as f64,
            _ => EMPTY_DOCUMENT,
        }
    }

    /// `[queries, candidates]`
    fn scores<T: Real>(&self, found: &Found<T>) -> Vec<T> {
        let candidates = self.candidates();
        let score = |score: usize| {
            if self.nothing_there(score) {
                return T::of(self.of_nothing(score));
            }
            let (query, place) = (score / candidates, score % candidates);
            let mut sum = T::ZERO;
            for vector in ends(&self.queries, query) {
                sum += found.like[vector * candidates + place];
            }
            sum * found.weights[score]
        };
        (0..self.n() * candidates).map(score).collect()
    }

    /// The gradients of queries and documents, given that of the scores.
    fn backward<T: Real>(&self, found: &Found<T>, q: &[T], d: &[T], upstream: &[T]) -> (Vec<T>, Vec<T>) {
        let (width, candidates) = (self.width, self.candidates());
        let (mut dq, mut dd) = (kernel::zeros::<T>(q.len()), kernel::zeros::<T>(d.len()));
        let (to_q, to_d) = (Shared::new(&mut dq), Shared::new(&mut dd));
        let slope = |query: usize, place: usize| {
            let score = query * candidates + place;
            upstream[score] * found.weights[score]
        };
        kernel::each(self.n(), 1, |query| {
            for vector in ends(&self.queries, query) {
                // SAFETY: each query has its own vectors.
                let target = unsafe { to_q.range(vector * width, width) };
                for place in 0..candidates {
                    let which = found.which[vector * candidates + place];
                    if which != NOBODY {
                        let at = which as usize * width;
                        add_scaled(target, &d[at..at + width], slope(query, place));
                    }
                }
            }
        });
        kernel::each(self.m(), 1, |document| {
            let (queries, place) = match self.pairs {
                Pairs::All => (0..self.n(), document),
                Pairs::Same => (document..document + 1, 0),
            };
            for query in queries {
                for vector in ends(&self.queries, query) {
                    let which = found.which[vector * candidates + place];
                    if which != NOBODY {
                        // SAFETY: each document has its own vectors.
                        let target = unsafe { to_d.range(which as usize * width, width) };
                        add_scaled(target, &q[vector * width..(vector + 1) * width], slope(query, place));
                    }
                }
            }
        });
        (dq, dd)
    }
}

struct Late {
    plan: Plan,
    /// Filled by the forward pass, emptied by the backward pass.
    found: Mutex<Option<Kept>>,
}

enum Kept {
    F32(Found<f32>),
    F64(Found<f64>),
}

impl CustomOp2 for Late {
    fn name(&self) -> &'static str {
        "late-interaction"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let plan = &self.plan;
        let (values, kept) = match kernel::dtype(s1) {
            DType::F32 => {
                let found = plan.find::<f32>(kernel::slice(s1, l1)?, kernel::slice(s2, l2)?);
                (CpuStorage::F32(plan.scores(&found)), Kept::F32(found))
            }
            DType::F64 => {
                let found = plan.find::<f64>(kernel::slice(s1, l1)?, kernel::slice(s2, l2)?);
                (CpuStorage::F64(plan.scores(&found)), Kept::F64(found))
            }
            other => bail!("late interaction: no kernel for {other:?}"),
        };
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok((values, shape(plan)))
    }

    fn bwd(&self, q: &Tensor, d: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        let dy = dy.contiguous()?;
        let (shape_q, shape_d) = (q.dims().to_vec(), d.dims().to_vec());
        let (q, d, dy) = (kernel::host(q)?, kernel::host(d)?, kernel::host(&dy)?);
        Ok(match found {
            Some(Kept::F32(found)) => {
                let (dq, dd) = self.plan.backward(&found, q.values()?, d.values()?, dy.values()?);
                (Some(kernel::tensor(dq, shape_q)?), Some(kernel::tensor(dd, shape_d)?))
            }
            Some(Kept::F64(found)) => {
                let (dq, dd) = self.plan.backward(&found, q.values()?, d.values()?, dy.values()?);
                (Some(kernel::tensor(dq, shape_q)?), Some(kernel::tensor(dd, shape_d)?))
            }
            None => bail!("late interaction: a graph is differentiated once"),
        })
    }
}

/// `[n, m]`, or `[n]` of pairs.
pub(super) fn shape(plan: &Plan) -> Shape {
    match plan.pairs {
        Pairs::All => Shape::from((plan.n(), plan.m())),
        Pairs::Same => Shape::from(plan.n()),
    }
}

/// What the vectors of queries find, on the host and without a graph.
pub(super) fn found_on_host(queries: &Tensor, documents: &Tensor, plan: &Plan) -> Result<(Vec<u32>, Vec<f64>)> {
    let host = |x: &Tensor| x.detach().to_device(&candle_core::Device::Cpu)?.contiguous();
    let (queries, documents) = (host(queries)?, host(documents)?);
    let dtype = queries.dtype();
    by_dtype!(dtype, "late interaction", T => {
        let (q, d) = (kernel::host(&queries)?, kernel::host(&documents)?);
        let found = plan.find::<T>(q.values()?, d.values()?);
        Ok((found.which, found.weights.iter().map(|w| candle_core::WithDType::to_f64(*w)).collect()))
    })
}

/// Every score's vectors of its query with what they found: score, query's vector, document's vector.
pub(super) fn links(plan: &Plan, which: &[u32]) -> Vec<(u32, u32, u32)> {
    let candidates = plan.candidates();
    let mut all = Vec::new();
    for query in 0..plan.n() {
        for place in 0..candidates {
            for vector in ends(&plan.queries, query) {
                let found = which[vector * candidates + place];
                if found != NOBODY {
                    all.push(((query * candidates + place) as u32, vector as u32, found));
                }
            }
        }
    }
    all
}
