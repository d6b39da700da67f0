//! The tape: forward passes in order, backward passes in reverse.

use std::collections::HashMap;

use super::tensor::Tensor;
use crate::dense::{Add, AddArgs, AddConfig};
use crate::dispatch::{Context, Error, Kernel, Recording, Result};

/// A tensor on a tape: what gradients flow through.
///
/// An operation without a backward pass neither takes nor gives a `Variable`, only [`Tensor`]s:
/// no gradient is dropped in silence.
#[derive(Debug, Clone)]
pub struct Variable {
    tensor: Tensor,
    id: usize,
}

impl Variable {
    /// Its value.
    #[must_use]
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }
}

/// From the gradients of the outputs (`None` where nothing depends on one; never all of them) to those of
/// the inputs (`None` where one is not wanted), with the dispatches that compute them.
type Backward = Box<dyn FnOnce(&Context, &[Option<Tensor>]) -> Result<(Recording, Vec<Option<Tensor>>)>>;

struct Node {
    outputs: Vec<usize>,
    inputs: Vec<usize>,
    backward: Backward,
}

/// Records operations.
pub struct Tape {
    context: Context,
    recording: Recording,
    nodes: Vec<Node>,
    variables: usize,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("operations", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// What [`Tape::backward`] gives: the whole step, and where each gradient lies.
#[derive(Debug)]
pub struct Gradients {
    /// Forward and backward passes, ready to be encoded at every step.
    pub recording: Recording,
    gradients: HashMap<usize, Tensor>,
}

impl Gradients {
    /// The gradient of a variable; `Err` if the loss does not depend on it.
    pub fn of(&self, variable: &Variable) -> Result<&Tensor> {
        self.gradients.get(&variable.id).ok_or_else(|| Error::Shape {
            what: "gradient",
            need: "a variable that the loss depends on".into(),
            got: format!("a variable of shape {:?} that it does not depend on", variable.tensor.shape()),
        })
    }
}

impl Tape {
    /// An empty tape.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone(), recording: Recording::new(), nodes: Vec::new(), variables: 0 }
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Puts a tensor on the tape: a parameter, or an input whose gradient is wanted.
    pub fn variable(&mut self, tensor: &Tensor) -> Variable {
        self.variables += 1;
        Variable { tensor: tensor.clone(), id: self.variables - 1 }
    }

    /// The forward passes alone, ready to be encoded: for a model that is not trained.
    #[must_use]
    pub fn into_recording(self) -> Recording {
        self.recording
    }

    /// Records dispatches that no gradient flows through.
    pub fn constant(&mut self, forward: Recording) {
        self.recording.append(forward);
    }

    /// Records an operation: its forward dispatches, which write `output`, and how to get from the
    /// gradient of `output` to those of `inputs` (in the same order).
    pub fn operation(
        &mut self,
        forward: Recording,
        inputs: &[&Variable],
        output: Tensor,
        backward: impl FnOnce(&Context, &Tensor) -> Result<(Recording, Vec<Option<Tensor>>)> + 'static,
    ) -> Variable {
        let one = |context: &Context, dy: &[Option<Tensor>]| match dy {
            [Some(dy)] => backward(context, dy),
            _ => Ok((Recording::new(), Vec::new())),
        };
        let [variable] = self.operation_of_many(forward, inputs, [output], one);
        variable
    }

    /// As [`operation`](Self::operation), with several outputs. A gradient that is `None` is zero:
    /// nothing depends on that output. At least one is there.
    pub fn operation_of_many<const N: usize>(
        &mut self,
        forward: Recording,
        inputs: &[&Variable],
        outputs: [Tensor; N],
        backward: impl FnOnce(&Context, &[Option<Tensor>]) -> Result<(Recording, Vec<Option<Tensor>>)> + 'static,
    ) -> [Variable; N] {
        self.recording.append(forward);
        let variables = outputs.map(|output| self.variable(&output));
        self.nodes.push(Node {
            outputs: variables.iter().map(|v| v.id).collect(),
            inputs: inputs.iter().map(|v| v.id).collect(),
            backward: Box::new(backward),
        });
        variables
    }

    /// Appends the backward passes of everything that `output` depends on, from its gradient.
    /// A variable that is used more than once gets the sum, added in the order of the tape.
    pub fn backward(self, output: &Variable, gradient: &Tensor) -> Result<Gradients> {
        crate::dispatch::check_shape(
            gradient.len() == output.tensor.len(),
            "gradient",
            format!("{} elements", output.tensor.len()),
            gradient.shape(),
        )?;
        let mut gradients = HashMap::from([(output.id, gradient.clone())]);
        // The first gradient of a variable may be a tensor that others hold too (the caller's, or
        // one that an operation hands through): sums go into tensors of the tape's own.
        let mut owned = std::collections::HashSet::new();
        let mut recording = self.recording;
        for node in self.nodes.into_iter().rev() {
            let dy: Vec<_> = node.outputs.iter().map(|output| gradients.get(output).cloned()).collect();
            if dy.iter().all(Option::is_none) {
                continue;
            }
            let (dispatches, given) = (node.backward)(&self.context, &dy)?;
            recording.append(dispatches);
            for (id, new) in node.inputs.into_iter().zip(given) {
                let Some(new) = new else { continue };
                match gradients.get(&id) {
                    None => {
                        gradients.insert(id, new);
                    }
                    Some(old) => {
                        let sum = if owned.insert(id) {
                            let sum = Tensor::new(&self.context, "gradient", old.shape())?;
                            recording.append(add(&self.context, old, &sum, false)?);
                            sum
                        } else {
                            old.clone()
                        };
                        recording.append(add(&self.context, &new, &sum, true)?);
                        gradients.insert(id, sum);
                    }
                }
            }
        }
        Ok(Gradients { recording, gradients })
    }
}

/// `sum = x`, or `sum += x`.
fn add(context: &Context, x: &Tensor, sum: &Tensor, accumulate: bool) -> Result<Recording> {
    let b = if accumulate { 1.0 } else { 0.0 };
    let kernel = Add::new(context, AddConfig { count: x.len(), a: 1.0, b, variant: None })?;
    kernel.prepare(&AddArgs { x: x.view(), y: sum.view() })
}
