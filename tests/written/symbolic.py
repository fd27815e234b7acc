"""Gaussians whose means and deviations are symbols: what SymPy shows for them holds for all of them."""

import sympy

z, mu_q, mu_p = sympy.symbols("z mu_q mu_p", real=True)
sigma_q, sigma_p, sigma = sympy.symbols("sigma_q sigma_p sigma", positive=True)


def log_density(mu, sigma):
    """log N(z; mu, sigma^2), a polynomial in z."""
    return -sympy.log(2 * sympy.pi * sigma**2) / 2 - (z - mu) ** 2 / (2 * sigma**2)


def expectation(polynomial, mu, sigma):
    """The integral of N(z; mu, sigma^2) times a polynomial in z: z = mu + sigma eps, and the moments of eps."""
    eps = sympy.Dummy("eps", real=True)
    density = sympy.exp(-(eps**2) / 2) / sympy.sqrt(2 * sympy.pi)
    terms = sympy.Poly(sympy.expand(polynomial.subs(z, mu + sigma * eps)), eps).terms()
    return sum(c * sympy.integrate(eps**power * density, (eps, -sympy.oo, sympy.oo)) for (power,), c in terms)


def same(left, right):
    """Whether two expressions are equal for all values of their symbols."""
    return sympy.simplify(sympy.expand_log(sympy.expand(left - right))) == 0
