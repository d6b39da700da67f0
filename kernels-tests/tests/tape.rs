//! The tape: a variable that is used more than once gets the sum of its gradients.

use kernels_tests::harness::adapter;
use patchfield::Kernel;
use patchfield::dense::*;
use patchfield::train::{Tape, Tensor, Variable};

/// `y = slope x` for the negative `x` of this test.
fn scale(tape: &mut Tape, x: &Variable, slope: f32) -> Variable {
    let context = tape.context().clone();
    let activation = Activation::LeakyRelu { slope };
    let config = ActivationConfig { activation, count: x.tensor().len(), variant: None };
    let input = x.tensor().clone();
    let y = Tensor::new(&context, "y", input.shape()).unwrap();
    let args = ActivationForwardArgs { x: input.view(), y: y.view() };
    let forward = ActivationForward::new(&context, config).unwrap().prepare(&args).unwrap();
    tape.operation(forward, &[x], y, move |context, dy| {
        let dx = Tensor::new(context, "dx", input.shape())?;
        let args = ActivationBackwardArgs { x: input.view(), dy: dy.view(), dx: dx.view() };
        let recording = ActivationBackward::new(context, config)?.prepare(&args)?;
        Ok((recording, vec![Some(dx)]))
    })
}

/// `a + b`, whose backward hands its gradient through to both.
fn join(tape: &mut Tape, a: &Variable, b: &Variable) -> Variable {
    let context = tape.context().clone();
    let y = Tensor::new(&context, "y", a.tensor().shape()).unwrap();
    let mut forward = patchfield::Recording::new();
    for (x, keep) in [(a, 0.0), (b, 1.0)] {
        let config = AddConfig { count: y.len(), a: 1.0, b: keep, variant: None };
        let args = AddArgs { x: x.tensor().view(), y: y.view() };
        forward.append(Add::new(&context, config).unwrap().prepare(&args).unwrap());
    }
    tape.operation(forward, &[a, b], y, |_, dy| {
        Ok((patchfield::Recording::new(), vec![Some(dy.clone()), Some(dy.clone())]))
    })
}

#[test]
fn gradients_of_a_variable_used_three_times_add_up() {
    let Some(adapter) = adapter::all().into_iter().next() else {
        assert!(std::env::var("PATCHFIELD_REQUIRE_GPU").as_deref() != Ok("1"), "no adapter");
        eprintln!("LOUD SKIP: no adapter");
        return;
    };
    let context = adapter.context;
    let x = Tensor::from_slice(&context, "x", &[5], &[-1.0, -2.0, -3.0, -4.0, -5.0]).unwrap();
    let dy = Tensor::from_slice(&context, "dy", &[5], &[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let mut tape = Tape::new(&context);
    let x = tape.variable(&x);
    let (a, b) = (scale(&mut tape, &x, 2.0), scale(&mut tape, &x, 3.0));
    let sum = join(&mut tape, &a, &b);
    let y = join(&mut tape, &sum, &x);
    let unused = tape.variable(&dy);
    let gradients = tape.backward(&y, &dy).unwrap();
    // Encoded twice: a recorded step gives the same again.
    for _ in 0..2 {
        context.run_blocking(&gradients.recording).unwrap();
        assert_eq!(y.tensor().read(&context).unwrap(), [-6.0, -12.0, -18.0, -24.0, -30.0]);
        assert_eq!(gradients.of(&x).unwrap().read(&context).unwrap(), [6.0, 12.0, 18.0, 24.0, 30.0]);
        assert_eq!(dy.read(&context).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }
    assert!(gradients.of(&unused).is_err());
}
