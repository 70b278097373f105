"""How the demo voice is made: espeak-ng recordings, a codec, a judge, and a small OmniVoice trained on them."""
