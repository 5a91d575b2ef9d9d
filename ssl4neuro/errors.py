"""The one exception that a user is meant to see."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line that names the file or option, says what is wrong and what to do about it:
    `cohorts/rest20/cohort.json: not valid JSON (cut short?); prepare the cohort again`.
    The command line prints it without a traceback and exits with status 2.
    """
