//! The tape: forward passes in order, backward passes in reverse.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tensor::Tensor;
use crate::dense::{Add, AddArgs, AddConfig};
use crate::dispatch::{Context, Error, Kernel, Recording, Result, check_config, check_shape};

/// A tensor on a tape: what gradients flow through.
///
/// An operation without a backward pass neither takes nor gives a `Variable`, only [`Tensor`]s:
/// no gradient is dropped in silence.
#[derive(Debug, Clone)]
pub struct Variable {
    tensor: Tensor,
    id: Id,
}

/// The number of the tape, and that of the variable on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    tape: u64,
    variable: usize,
}

impl Id {
    /// Gradients flow along one tape.
    fn check(self, tape: u64, what: &'static str) -> Result<()> {
        check_config(self.tape == tape, what, "a variable of this tape", "one of another")
    }
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
    outputs: Vec<Id>,
    /// With their elements.
    inputs: Vec<(Id, u32)>,
    backward: Backward,
}

/// Records operations.
pub struct Tape {
    context: Context,
    recording: Recording,
    nodes: Vec<Node>,
    number: u64,
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
    tape: u64,
    gradients: HashMap<Id, Tensor>,
}

impl Gradients {
    /// The gradient of a variable; `Err` if the loss does not depend on it, or it is of another tape.
    pub fn of(&self, variable: &Variable) -> Result<&Tensor> {
        variable.id.check(self.tape, "variable")?;
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
        static TAPES: AtomicU64 = AtomicU64::new(0);
        let number = TAPES.fetch_add(1, Ordering::Relaxed);
        Self {
            context: context.clone(),
            recording: Recording::new(),
            nodes: Vec::new(),
            number,
            variables: 0,
        }
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Puts a tensor on the tape: a parameter, or an input whose gradient is wanted.
    pub fn variable(&mut self, tensor: &Tensor) -> Variable {
        let id = Id { tape: self.number, variable: self.variables };
        self.variables += 1;
        Variable { tensor: tensor.clone(), id }
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
    /// gradient of `output` to those of `inputs` (in the same order, as many, with as many elements each).
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
            inputs: inputs.iter().map(|v| (v.id, v.tensor.len())).collect(),
            backward: Box::new(backward),
        });
        variables
    }

    /// Appends the backward passes of everything that `output` depends on, from its gradient.
    /// A variable that is used more than once gets the sum, added in the order of the tape.
    ///
    /// Refused: variables of another tape, among the inputs of operations too, and gradients of an operation that do
    /// not match its inputs.
    pub fn backward(self, output: &Variable, gradient: &Tensor) -> Result<Gradients> {
        check_shape(
            gradient.len() == output.tensor.len(),
            "gradient",
            format!("{} elements", output.tensor.len()),
            gradient.shape(),
        )?;
        output.id.check(self.number, "output")?;
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
            let as_many = format!("{}, one for each input", node.inputs.len());
            check_shape(given.len() == node.inputs.len(), "gradients of an operation", as_many, given.len())?;
            for ((id, elements), new) in node.inputs.into_iter().zip(given) {
                id.check(self.number, "input")?;
                let Some(new) = new else { continue };
                let need = format!("{elements} elements, as the input");
                check_shape(new.len() == elements, "gradient of an operation", need, new.shape())?;
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
        Ok(Gradients { recording, tape: self.number, gradients })
    }
}

/// `sum = x`, or `sum += x`.
fn add(context: &Context, x: &Tensor, sum: &Tensor, accumulate: bool) -> Result<Recording> {
    let b = if accumulate { 1.0 } else { 0.0 };
    let kernel = Add::new(context, AddConfig { count: x.len(), a: 1.0, b, variant: None })?;
    kernel.prepare(&AddArgs { x: x.view(), y: sum.view() })
}
