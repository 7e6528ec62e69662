"""What a study will take, before it starts and while it runs, by its config and measured rates. No torch."""
