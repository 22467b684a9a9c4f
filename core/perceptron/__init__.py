"""A perceptron that learns the labels of another by gradient descent on the logistic loss."""
