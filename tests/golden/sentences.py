"""Plain sentences written for these tests, by hand and by template. Nothing here comes from a data set."""

import random

HAND = """
The grey cat sleeps on the warm stove.
A small dog runs across the wet field.
Two children build a castle from sand.
She reads a long letter by the window.
He repairs the old bicycle in the garage.
The train to the coast leaves at seven.
Bread is baked early in the morning.
Our neighbour grows tomatoes and beans.
The river rises after heavy rain.
Snow covers the roofs of the village.
A painter mixes blue and yellow into green.
The teacher explains the rule once more.
Water boils at one hundred degrees.
The moon pulls the sea towards the shore.
Bees carry pollen from flower to flower.
An old clock strikes twelve in the hall.
The ship enters the harbour at night.
Farmers cut the hay before the storm.
My brother plays the violin every evening.
The library closes later on Thursday.
Fresh coffee smells good in the kitchen.
A tall woman waits for the last bus.
The shop sells paper, ink and pencils.
Wolves hunt together in the winter forest.
The doctor listens to the patient.
They walk slowly up the steep hill.
The engine makes a strange noise.
Sugar dissolves quickly in hot tea.
The bridge was closed for repairs.
A candle burns on the wooden table.
The lake freezes in January.
Birds fly south before the cold comes.
The lawyer signs the final contract.
We planted three apple trees last spring.
The museum shows paintings from Spain.
A carpenter measures the broken door.
The market opens on Saturday morning.
He forgot his umbrella on the train.
The judge asked a simple question.
Salt keeps the ice from forming.
The young pilot lands the plane safely.
Her grandmother tells stories about the war.
The printer is out of paper again.
A thin fox crosses the road at dusk.
The band played until midnight.
Glass is made from sand and heat.
The mayor opens the new school.
Rice grows in flooded fields.
The computer needs a new battery.
A loud whistle stops the game.
How do plants turn light into sugar?
Why does iron rust in damp air?
What makes the sky look blue at noon?
Where do swallows spend the winter?
When was the first bridge over this river built?
Who wrote the song about the lost sailor?
Which metal is liquid at room temperature?
Can a cat see in complete darkness?
The price of the ticket has doubled since 1998.
Café owners complain about the noisy street; nobody answers.
It's late, isn't it? Let's go home!
Version 2.5 costs $10.99 (plus tax).
""".strip().splitlines()

PEOPLE = ["The farmer", "A nurse", "The pilot", "My sister", "The baker", "An engineer", "The student", "A sailor",
          "The gardener", "Our teacher"]
VERBS = ["finds", "carries", "repairs", "paints", "sells", "loses", "cleans", "borrows"]
THINGS = ["a red bicycle", "the broken lamp", "a wooden chair", "the old radio", "a blue coat", "the heavy box",
          "a silver spoon", "the torn map", "a leather bag", "the green bottle", "a small mirror", "the brass key"]
PLACES = ["in the garden", "near the harbour", "behind the school", "at the market", "on the bridge",
          "beside the lake", "in the cellar", "at the station", "under the old tree", "by the church"]
TIMES = ["in the morning", "at night", "on Sunday", "before lunch", "after the storm", "every winter", "last week",
         "today"]

PAST = {"finds": "found", "carries": "carried", "repairs": "repaired", "paints": "painted", "sells": "sold",
        "loses": "lost", "cleans": "cleaned", "borrows": "borrowed"}


def _pick(rng):
    return rng.choice(PEOPLE), rng.choice(VERBS), rng.choice(THINGS), rng.choice(PLACES), rng.choice(TIMES)


def pairs(count=160, seed=11):
    """Question and statement about the same small event; every pair is distinct."""
    rng = random.Random(seed)
    rows, seen = [], set()
    while len(rows) < count:
        who, verb, what, where, when = _pick(rng)
        if (who, verb, what, where) in seen:
            continue
        seen.add((who, verb, what, where))
        shapes = [
            (f"Who {verb} {what} {where}?", f"{who} {verb} {what} {where} {when}."),
            (f"What is it that {who.lower()} {verb} {when}?", f"It was {what}, {PAST[verb]} {where}."),
            (f"Where was {what} {PAST[verb]} by {who.lower()}?", f"{who} {verb} it {where}."),
            (f"{who} {verb} {what}.", f"{what[0].upper() + what[1:]} was {PAST[verb]} {when}, {where}, by {who.lower()}."),
        ]
        anchor, positive = shapes[rng.randrange(len(shapes))]
        rows.append({"anchor": anchor, "positive": positive})
    return rows


def scored(count=160, seed=12):
    """Two statements and the share of their five slots that agree, as a score in 0..1 (steps of 0.2, hence ties)."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        first = _pick(rng)
        other = _pick(rng)
        keep = rng.randrange(6)
        kept = set(rng.sample(range(5), keep))
        second = tuple(first[i] if i in kept else other[i] for i in range(5))
        same = sum(a == b for a, b in zip(first, second))

        def say(slots):
            who, verb, what, where, when = slots
            return f"{who} {verb} {what} {where} {when}."

        rows.append({"sentence1": say(first), "sentence2": say(second), "score": round(same / 5, 1)})
    return rows


def all_sentences():
    texts = list(HAND)
    for row in pairs():
        texts += [row["anchor"], row["positive"]]
    for row in scored():
        texts += [row["sentence1"], row["sentence2"]]
    return texts
