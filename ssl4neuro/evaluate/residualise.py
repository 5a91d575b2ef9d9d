"""Features without what age, sex or motion explain of them: a linear model fitted on the training rows of every fold.

Snoek, Miletić, Scholte (2019), "How to control for confounds in decoding analyses of neuroimaging data", NeuroImage 184:741:
regressing confounds out of all rows at once biases cross-validated results below chance; fitted inside the fold it does not.
What depends on a nuisance in another than a linear way stays, and so does what the measured nuisance does not know: in a
simulated cohort without any effect, whose states differ in motion and gain, maps tell them apart at AUC 0.78 (0.89 before).
So these lines can show that an answer was in the nuisances, not that it was not.
"""

import numpy as np
import pandas as pd

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.covariates import Design
from ssl4neuro.evaluate.features import Features, Pair, Rows

SUFFIX = ", nuisances regressed out"
LARGEST_SHARE = 0.5  # regressors per training row, above which the fit would leave little of the features


class ResidualFeatures:
    """Features of `inner` minus their linear prediction from the nuisance columns."""

    def __init__(self, inner: Features, nuisances: pd.DataFrame) -> None:
        self.inner, self.nuisances = inner, nuisances.reset_index(drop=True)

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Residuals; the features' training mean is kept.

        Raises:
            UserError: more regressors than half the training rows, or features that are no vectors.
        """
        x, x_test = self.inner.fold(train, test)
        if x.ndim != 2:
            raise UserError(
                "nuisance: this probe reads bags of samples, and regression needs one vector per row; use --probe linear"
            )
        design = Design(self.nuisances.iloc[train])
        if len(design.names) > LARGEST_SHARE * len(train):
            widest = max(set(design.names), key=design.names.count)
            raise UserError(
                f"nuisance: {len(design.names)} regressors for {len(train)} training rows would leave nothing to find; leave"
                f" out columns (largest: '{widest}' with {design.names.count(widest)})"
            )
        regressors = design.matrix(self.nuisances.iloc[train])
        weights = np.linalg.lstsq(regressors, x.astype(np.float64) - x.mean(axis=0, dtype=np.float64), rcond=None)[0]
        left = x - regressors @ weights
        right = x_test - design.matrix(self.nuisances.iloc[test]) @ weights
        return left.astype(np.float32), right.astype(np.float32)
