"""What the NATs in front of this host do: asking STUN servers, judging the answers, predicting the next ports."""
