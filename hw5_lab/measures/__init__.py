"""What a model is worth: functions of a model and data, which return and neither draw nor print."""
