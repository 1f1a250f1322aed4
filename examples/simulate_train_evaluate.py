"""Simulate a city, train a model and evaluate it, in a minute. Writes into ./example_city."""

import hemix

counts = hemix.simulate("example_city/logs", users=200, days=4, seed=0)
print(f"{counts['impressions']:,} impressions, {counts['click_rate']:.1%} clicked")

manifest = hemix.prepare("example_city/logs", "example_city/data")
print({name: split["rows"] for name, split in manifest["splits"].items()})

run = hemix.train(
    "example_city/data",
    "example_city/run",
    settings={"train.epochs": 1, "train.batch_size": 256},
)

figures = hemix.evaluate(run, "example_city/data")
click = figures["tasks"]["click"]
print(
    f"test click AUC {click['auc']:.3f}, popularity {click['popularity_auc']:.3f}, truth "
    f"{click['oracle_auc']:.3f}"
)
print(f"open {run / 'report.html'}")
