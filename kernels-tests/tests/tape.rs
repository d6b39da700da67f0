//! The tape: a variable that is used more than once gets the sum of its gradients.

use kernels_tests::harness::adapter::best_context;
use patchfield::Kernel;
use patchfield::dense::*;
use patchfield::train::{Tape, Tensor, Variable, ops};

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
    let Some(context) = best_context() else { return };
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

#[test]
fn what_does_not_belong_together_is_refused() {
    let Some(context) = best_context() else { return };
    let tensor = |n: u32| Tensor::from_slice(&context, "test", &[n], &vec![-1.0; n as usize]).unwrap();
    let (mut one, mut other) = (Tape::new(&context), Tape::new(&context));
    let (x, foreign) = (one.variable(&tensor(5)), other.variable(&tensor(5)));
    let y = join(&mut one, &x, &foreign);
    let says = |error: patchfield::Error, word: &str| assert!(error.to_string().contains(word), "{error}");
    says(one.backward(&y, &tensor(5)).unwrap_err(), "of this tape");
    let y = scale(&mut other, &foreign, 2.0);
    let gradients = other.backward(&y, &tensor(5)).unwrap();
    assert!(gradients.of(&foreign).is_ok());
    says(gradients.of(&x).unwrap_err(), "of this tape");

    // What an operation of the caller's gives back.
    let given = |gradients: Vec<Option<Tensor>>| {
        let mut tape = Tape::new(&context);
        let (a, b) = (tape.variable(&tensor(5)), tape.variable(&tensor(3)));
        let nothing = patchfield::Recording::new;
        let y = tape.operation(nothing(), &[&a, &b], tensor(5), move |_, _| Ok((nothing(), gradients)));
        tape.backward(&y, &tensor(5)).map(drop)
    };
    assert_eq!(given(vec![None, Some(tensor(3))]), Ok(()));
    says(given(vec![Some(tensor(5))]).unwrap_err(), "one for each input");
    says(given(vec![Some(tensor(5)), Some(tensor(5))]).unwrap_err(), "3 elements");
}

#[test]
fn what_is_not_given_gets_no_gradient() {
    let Some(context) = best_context() else { return };
    let tensor = |shape: &[u32]| {
        let n = shape.iter().product::<u32>() as usize;
        Tensor::from_slice(&context, "test", shape, &vec![1.0; n]).unwrap()
    };
    let read = |tensor: &Tensor| tensor.read(&context).unwrap();

    let mut tape = Tape::new(&context);
    let image = tensor(&[1, 1, 4, 4]);
    let weight = tape.variable(&tensor(&[3, 4]));
    let patch = patchfield::attention::PatchConfig::square(1, 1, 4, 2);
    let y = ops::patch_embedding(&mut tape, &image, &weight, None, patch).unwrap();
    let table = tape.variable(&tensor(&[4, 3]));
    let y = ops::add_position(&mut tape, &y, None, &table).unwrap();
    let square = tape.variable(&tensor(&[3, 3]));
    let y = ops::linear(&mut tape, &y, &square, None, Activation::Identity).unwrap();
    let gradients = tape.backward(&y, &tensor(&[1, 4, 3])).unwrap();
    context.run_blocking(&gradients.recording).unwrap();
    assert_eq!(read(y.tensor()), [15.0; 12]);
    assert_eq!(read(gradients.of(&weight).unwrap()), [12.0; 12]);
    assert_eq!(read(gradients.of(&table).unwrap()), [3.0; 12]);
    assert_eq!(read(gradients.of(&square).unwrap()), [20.0; 9]);
}

#[test]
fn operations_of_several_outputs_take_what_gradients_there_are() {
    let Some(context) = best_context() else { return };
    let tensor = |shape: &[u32], data: &[f32]| Tensor::from_slice(&context, "test", shape, data).unwrap();
    let read = |tensor: &Tensor| tensor.read(&context).unwrap();

    // Only the keys are used: queries and values get zeros.
    let mut tape = Tape::new(&context);
    let x = tape.variable(&tensor(&[2, 6], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]));
    let [_, keys, _] = ops::split_qkv(&mut tape, &x).unwrap();
    let weight = tape.variable(&tensor(&[2, 1], &[1.0, -2.0]));
    let y = ops::matmul(&mut tape, &keys, &weight).unwrap();
    let gradients = tape.backward(&y, &tensor(&[2, 1], &[1.0, 10.0])).unwrap();
    context.run_blocking(&gradients.recording).unwrap();
    assert_eq!(read(y.tensor()), [3.0 - 8.0, 9.0 - 20.0]);
    let dx = [0.0, 0.0, 1.0, -2.0, 0.0, 0.0, 0.0, 0.0, 10.0, -20.0, 0.0, 0.0];
    assert_eq!(read(gradients.of(&x).unwrap()), dx);
    assert_eq!(read(gradients.of(&weight).unwrap()), [3.0 + 90.0, 4.0 + 100.0]);

    // A sum and its norm, of which the sum alone, the norm alone, or both are used.
    let norm = |use_sum: bool, use_norm: bool| {
        let mut tape = Tape::new(&context);
        let a = tape.variable(&tensor(&[2, 2], &[1.0, 4.0, 2.0, -1.0]));
        let b = tape.variable(&tensor(&[2, 2], &[0.5, 1.5, 1.0, 2.0]));
        let (weight, bias) = (tensor(&[2], &[2.0, 3.0]), tensor(&[2], &[0.0; 2]));
        let (weight, bias) = (tape.variable(&weight), tape.variable(&bias));
        let norm = ops::Norm { weight: &weight, bias: &bias, epsilon: 0.5 };
        let [h, y] = ops::add_layer_norm(&mut tape, &a, &b, norm).unwrap();
        let output = match (use_sum, use_norm) {
            (true, true) => ops::add(&mut tape, &h, &y).unwrap(),
            (true, false) => h,
            _ => y,
        };
        let gradients = tape.backward(&output, &tensor(&[2, 2], &[1.0, -2.0, 0.5, 3.0])).unwrap();
        context.run_blocking(&gradients.recording).unwrap();
        let da = read(gradients.of(&a).unwrap());
        assert_eq!(da, read(gradients.of(&b).unwrap()));
        assert_eq!(gradients.of(&weight).is_ok(), use_norm);
        da
    };
    let (sum, norm, both) = (norm(true, false), norm(false, true), norm(true, true));
    assert_eq!(sum, [1.0, -2.0, 0.5, 3.0]);
    for i in 0..4 {
        assert!((both[i] - sum[i] - norm[i]).abs() < 1e-6, "{both:?}");
    }
}
