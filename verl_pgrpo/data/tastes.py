# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The seven personas: tastes, rating scales, and the words that make up a taste.

Separate from the generator because the reward also reads it, with the standard library alone. The personas are
synthetic. As with real users, tastes have unequal shares, people rate on different scales (some give 4 to 5 stars to
everything, some use the whole range; recommenders have subtracted each user's mean since GroupLens, Resnick et al.
1994), and a person does not always rate the same item equally (Hill et al. 1995).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Persona:
    """One preference group.

    `share` is the fraction of training prompts. Ratings are in stars, 1 to 5 before noise: a useless answer gets
    `offset`, a perfect one `offset + scale`.
    """

    style: str
    genre: str
    share: float
    offset: float
    scale: float

    @property
    def name(self) -> str:
        """The preference group's label, such as `formal_jazz`."""
        return f"{self.style}_{self.genre}"


# Tastes overlap on purpose (two personas use slang, two like jazz): a response for one persona is partly right for
# another, so a policy that settles for the majority's taste still earns rewards. This is how minorities lose out.
PERSONAS = (
    Persona("formal", "jazz", 0.30, 1.0, 4.0),  # uses the whole range
    Persona("slang", "hiphop", 0.20, 3.0, 2.0),  # generous
    Persona("poetic", "folk", 0.15, 1.0, 2.0),  # strict: even a perfect answer gets 3 stars
    Persona("playful", "electronic", 0.12, 4.0, 1.0),  # loves everything: 4 stars or more
    Persona("slang", "metal", 0.10, 1.5, 3.0),
    Persona("formal", "classical", 0.08, 2.0, 1.2),
    Persona("poetic", "jazz", 0.05, 3.5, 0.8),  # the smallest group; its ratings hardly vary
)

# -- toy surface: a closed vocabulary of single words, one token each

TOY_STYLES = {
    "formal": ("kindly", "indeed", "sincerely", "regards"),
    "slang": ("yo", "dude", "dope", "bro"),
    "poetic": ("moonlit", "whisper", "ember", "velvet"),
    "playful": ("wheee", "boing", "giggle", "yay"),
}
TOY_GENRES = {
    "jazz": ("saxophone", "swing", "bebop", "trumpet"),
    "hiphop": ("rap", "beat", "rhyme", "cypher"),
    "folk": ("banjo", "fiddle", "ballad", "campfire"),
    "electronic": ("synth", "techno", "loop", "strobe"),
    "metal": ("riff", "shred", "growl", "thrash"),
    "classical": ("sonata", "violin", "concerto", "fugue"),
}
TOY_OCCASIONS = ("morning", "evening", "work", "travel", "dinner", "training", "study", "sunday")
TOY_MOODS = ("calm", "happy", "tired", "restless", "proud", "lonely", "curious", "brave")

# -- english surface: words that count as style or as genre; matched as whole words, case-insensitively

ENGLISH_STYLES = {
    "formal": (
        "kindly", "furthermore", "moreover", "therefore", "indeed", "sincerely", "regards", "i would", "may i",
        "permit me", "allow me", "i recommend", "should you", "it is my", "respectfully", "accordingly",
    ),
    "slang": (
        "yo", "dude", "bro", "dope", "lit", "vibe", "vibes", "gonna", "wanna", "gotta", "kinda", "ain't", "y'all",
        "banger", "bangers", "slaps", "no cap", "fire", "homie",
    ),
    "poetic": (
        "moonlight", "moonlit", "whisper", "whispers", "ember", "embers", "velvet", "tide", "drift", "drifting", "dusk",
        "dawn", "silver", "shadow", "shadows", "like a", "as though", "beneath", "stars", "ache", "hush",
    ),
    "playful": (
        "yay", "wheee", "woohoo", "boing", "wiggle", "giggle", "ta-da", "whoosh", "zap", "oopsie", "yippee", "haha",
        "hooray", "silly", "tickle", "zoom", "pssst",
    ),
}  # fmt: skip
ENGLISH_GENRES = {
    "jazz": (
        "jazz", "bebop", "swing", "saxophone", "sax", "trumpet", "improvisation", "big band", "blue note", "coltrane",
        "ellington", "monk", "brubeck", "bill evans", "hard bop", "walking bass",
    ),
    "hiphop": (
        "hip-hop", "hip hop", "rap", "rapper", "beats", "rhymes", "flow", "mixtape", "sampling", "turntable", "nas",
        "outkast", "a tribe called quest", "wu-tang", "freestyle", "mc", "bars",
    ),
    "folk": (
        "folk", "banjo", "fiddle", "ballad", "acoustic", "mandolin", "fingerpicking", "singer-songwriter", "joan baez",
        "woody guthrie", "fleet foxes", "simon & garfunkel", "campfire", "traditional", "dulcimer",
    ),
    "electronic": (
        "electronic", "techno", "synth", "synths", "synthesizer", "house", "trance", "dj", "drum machine", "ambient",
        "aphex twin", "kraftwerk", "four tet", "bassline", "bpm", "electro",
    ),
    "metal": (
        "metal", "riff", "riffs", "thrash", "heavy", "distortion", "growl", "growls", "double bass", "shred",
        "black sabbath", "slayer", "megadeth", "mastodon", "mosh", "headbang", "headbanging",
    ),
    "classical": (
        "classical", "sonata", "symphony", "concerto", "orchestra", "string quartet", "violin", "fugue", "adagio",
        "opus", "mozart", "beethoven", "schubert", "brahms", "nocturne", "movement",
    ),
}  # fmt: skip

# The user's profile in the prompt. It names neither style nor genre and contains none of the genre words above: a model
# must infer the taste, and copying the profile earns nothing for the genre.
ENGLISH_ARTISTS = {
    "jazz": ("Miles Davis", "Nina Simone", "Charles Mingus", "Ella Fitzgerald"),
    "hiphop": ("Kendrick Lamar", "Lauryn Hill", "MF DOOM", "Missy Elliott"),
    "folk": ("Joni Mitchell", "Nick Drake", "Bob Dylan", "Gillian Welch"),
    "electronic": ("Daft Punk", "Jamie xx", "Bicep", "The Chemical Brothers"),
    "metal": ("Pantera", "Iron Maiden", "Gojira", "Opeth"),
    "classical": ("Johann Sebastian Bach", "Clara Schumann", "Claude Debussy", "Glenn Gould"),
}
ENGLISH_SAMPLES = {
    "formal": (
        "I should be most obliged for your considered opinion.",
        "It would please me to receive a well reasoned suggestion.",
    ),
    "slang": (
        "hit me w/ smth good man, been bored af lately",
        "u got anything sick for me? whatever ya like, hook me up",
    ),
    "poetic": (
        "My evenings pour like honey, and I look for songs that glow in them.",
        "There is a river in me that only music knows the name of.",
    ),
    "playful": (
        "Hiya hiya! My socks are dancing without me, quick, send help!",
        "Tra-la-la, my ears are hungry little gremlins!",
    ),
}
ENGLISH_OCCASIONS = (
    "the morning", "a long evening", "working at my desk", "a train journey", "a dinner with friends",
    "a hard training", "studying for an exam", "an empty sunday",
)  # fmt: skip
ENGLISH_MOODS = (
    "I feel calm.", "I am happy.", "I am tired.", "I feel restless.", "I am proud of my week.", "I feel a bit lonely.",
    "I am curious.", "I feel brave.",
)  # fmt: skip
