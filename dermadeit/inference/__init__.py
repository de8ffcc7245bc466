"""Reading photos: predictor, records, heatmaps and their test, decisions."""
