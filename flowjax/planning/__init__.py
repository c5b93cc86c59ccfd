"""What a run takes on devices that are not here: `flowjax plan`."""
