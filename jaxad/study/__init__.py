"""Many runs, one table: experiments times seeds on the same data."""
