"""The broker: prices, holds, queues and delivers prompts."""
