"""Two plants to control: a quadrotor at hover and a cart with a pole, linear, with their limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Period of the control loop, seconds, and stages of the horizon.
LOOP_S = 0.002
HORIZON = 20


@dataclass(frozen=True)
class Plant:
    """A continuous linear plant dx/dt = F x + G u with weights, limits and a reference to follow.

    Attributes:
        q, r: Diagonals of the weights.
        x_max, u_max: Symmetric limits; infinite where there is none.
        stage_s: Length of one stage of the horizon.
        targets: [targets, nx], one after the other, each for ``hold_s``.
    """

    name: str
    F: np.ndarray
    G: np.ndarray
    q: np.ndarray
    r: np.ndarray
    x_max: np.ndarray
    u_max: np.ndarray
    stage_s: float
    targets: np.ndarray
    hold_s: float

    def sampled(self, period_s: float) -> tuple[np.ndarray, np.ndarray]:
        """A and B for inputs that are held over a period, by the matrix exponential's series."""
        nx, nu = self.G.shape
        whole = np.zeros((nx + nu, nx + nu))
        whole[:nx, :nx], whole[:nx, nx:] = self.F * period_s, self.G * period_s
        power = total = np.eye(nx + nu)
        for order in range(1, 20):
            power = power @ whole / order
            total = total + power
        return total[:nx, :nx], total[:nx, nx:]

    def terminal(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """The cost-to-go without limits: the Riccati equation, iterated."""
        Q, R = np.diag(self.q), np.diag(self.r)
        P = Q
        for _ in range(5000):
            gain = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
            P = Q + A.T @ P @ (A - B @ gain)
        return (P + P.T) / 2


def quadrotor() -> Plant:
    """A 27 g quadrotor at hover: position, velocity, tilt, rates; four rotors. 12 states, 4 inputs."""
    mass_kg, arm_m, gravity = 0.027, 0.0326, 9.81
    inertia = np.array([1.66e-5, 1.66e-5, 2.93e-5])
    F, G = np.zeros((12, 12)), np.zeros((12, 4))
    F[0:3, 3:6] = F[6:9, 9:12] = np.eye(3)
    F[3, 7], F[4, 6] = gravity, -gravity
    drag_m = 0.006
    G[5] = 1 / mass_kg
    G[9] = arm_m / inertia[0] * np.array([-1, -1, 1, 1])
    G[10] = arm_m / inertia[1] * np.array([-1, 1, 1, -1])
    G[11] = drag_m / inertia[2] * np.array([-1, 1, -1, 1])
    unit_n = 0.01  # inputs in centinewtons, so that they are of the order of 1
    x_max = np.full(12, np.inf)
    x_max[3:6], x_max[6:8] = 0.8, 0.25
    places = [(1, 0, 0), (1, 1, 0.5), (-0.5, 1, 0), (0, 0, 0), (0, -1, 0.8), (1, 0.5, 0)]
    targets = np.zeros((len(places), 12))
    targets[:, :3] = places
    return Plant(
        "quadrotor",
        F,
        G * unit_n,
        np.array([10, 10, 10, 1, 1, 1, 2, 2, 2, 0.05, 0.05, 0.05]),
        np.full(4, 0.05),
        x_max,
        np.full(4, 6.0),
        0.02,
        targets,
        hold_s=5.0,
    )


def cart_pole() -> Plant:
    """A pole upright on a cart: place, speed, angle, rate; one force. 4 states, 1 input."""
    cart_kg, pole_kg, half_m, gravity = 1.0, 0.1, 0.5, 9.81
    F, G = np.zeros((4, 4)), np.zeros((4, 1))
    F[0, 1] = F[2, 3] = 1.0
    F[1, 2] = -pole_kg * gravity / cart_kg
    F[3, 2] = gravity * (cart_kg + pole_kg) / (cart_kg * half_m)
    G[1], G[3] = 1 / cart_kg, -1 / (cart_kg * half_m)
    targets = np.zeros((4, 4))
    targets[:, 0] = (0.5, -0.5, 0.3, 0.0)
    return Plant(
        "cart-pole",
        F,
        G,
        np.array([10.0, 1.0, 10.0, 0.1]),
        np.array([0.1]),
        np.array([np.inf, np.inf, 0.08, np.inf]),
        np.array([2.0]),
        0.02,
        targets,
        hold_s=5.0,
    )
