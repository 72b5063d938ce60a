"""Writing requests with rules that can be checked: what is asked for, an answer of ours, and rules read off that answer.

Each brief is an ask with one answer to it; ``<slots>`` are filled in both. A request is the ask and two to five rules in
words. The rules are measured on the answer, with room to spare where a limit is meant, so every request can be
satisfied: the answer does.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from words import CITIES, NAMES, WEEKDAYS

Rule = dict[str, Any]


@dataclass(frozen=True)
class Brief:
    """What is asked, and one answer.

    Args:
        form: ``prose``, ``line``, ``poem``, ``list``, ``mail`` or ``data``.
        ask: the request without its rules.
        answer: satisfies it; measured for the rules.
        keys: words of the answer that a request may insist on, ``a|b|c``.
        taboo: words that come to mind and that the answer does without.
        core: a rule that always holds for this brief, with its words (``data`` alone).
        core_words: how the core is told.
    """

    form: str
    ask: str
    answer: str
    keys: str
    taboo: str = ""
    core: Rule = field(default_factory=dict)
    core_words: str = ""


def _object(required: dict[str, Any], **more: Any) -> Rule:
    return {"kind": "json", "schema": {"type": "object", "properties": required, "required": list(required), **more}}


TEXT, WHOLE, YES_NO = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "array", "items": {"type": "string"}}
MARKDOWN = {"kind": "format", "is": "markdown_table"}
CSV = {"kind": "format", "is": "csv"}

SLOTS: dict[str, Sequence[str]] = {
    "name": NAMES,
    "other": NAMES,
    "city": CITIES,
    "day": WEEKDAYS,
    "month": "January March April May June July September October November".split(),
    "pet": "cat dog parrot rabbit tortoise hamster pony".split(),
    "colour": "red blue green yellow white silver purple brown".split(),
    "hobby": "chess pottery gardening knitting rowing painting baking climbing".split(),
    "dish": "soup bread pizza curry salad porridge risotto goulash".split(),
    "fruit": "cherry banana lemon mango pear plum fig peach".split(),
    "plant": "basil cactus tomato lavender fern mint rose bamboo".split(),
    "drink": "coffee tea cocoa lemonade cider punch".split(),
    "instrument": "piano violin drum flute guitar trumpet cello".split(),
    "job": "baker carpenter nurse pilot teacher librarian gardener plumber".split(),
    "shop": "bakery bookshop florist toyshop cafe laundry pharmacy".split(),
    "vehicle": "bicycle van scooter caravan tractor minibus motorbike".split(),
    "place": [*"library museum harbour market station theatre".split(), "swimming pool"],
    "room": "kitchen garage cellar study hallway bathroom".split(),
    "gift": "lamp scarf book teapot puzzle blanket wallet".split(),
    "hour": "three four five six seven eight nine ten".split(),
    "few": "two three four five six".split(),
    "season": "spring summer winter".split(),
    "sport": "football tennis judo hockey handball volleyball".split(),
}

PROSE = [
    Brief(
        "prose",
        "Write a note to my flatmate <name> about the <dish> in the fridge.",
        "<name>, there is <dish> in the fridge for you. Please warm it up slowly and finish it by <day>. Leave the bowl in the sink when you are done.",
        "<dish>|<day>|fridge|bowl",
        "eat|dinner|hungry",
    ),
    Brief(
        "prose",
        "Write a notice for the door of a <shop> that is closed for repairs.",
        "Our <shop> is closed until <day> because the floor needs repairs. We are sorry for the trouble. Come back soon and look at the result.",
        "floor|<day>|sorry|repairs",
        "open|customers",
    ),
    Brief(
        "prose",
        "Write an advert for a used <colour> <vehicle>.",
        "For sale: a <colour> <vehicle> in good shape, with fresh tyres and a full service last <month>. It has one careful owner and runs well. Call <name> after <hour> for a test ride.",
        "<vehicle>|tyres|<month>|owner|service",
        "cheap|bargain|price",
    ),
    Brief(
        "prose",
        "Put up a lost and found message: somebody's <pet> has run away in <city>.",
        "Our <pet> slipped out of the garden in <city> on <day>. It is shy, small and answers to the name of <name>. If you see it, please ring us at any hour.",
        "<pet>|<city>|shy|garden|<name>",
        "lost|missing|reward",
    ),
    Brief(
        "prose",
        "Explain to a child why the sky is blue.",
        "Sunlight is made of many colours. When it meets the air, the blue part bounces around most, so it reaches us from every side. That is why we see blue when we look up.",
        "sunlight|air|bounces|colours",
        "scatter|atmosphere|molecules",
    ),
    Brief(
        "prose",
        "Explain in plain words what a bank does with savings.",
        "You lend your money to the bank, and it lends part of it to others. They pay interest for that. The bank keeps some of it and gives you the rest for waiting.",
        "money|interest|lends|waiting",
        "loan|account|profit",
    ),
    Brief(
        "prose",
        "Tell a newcomer how tides work.",
        "The moon pulls at the sea. On the side that faces it the water rises, and on the far side it rises too. As the earth turns, each coast passes through both bulges, so we get high water twice a day.",
        "moon|water|coast|earth",
        "gravity|ocean",
    ),
    Brief(
        "prose",
        "Write a short review of a <place> in <city> that you liked.",
        "The <place> in <city> was a lovely surprise. Friendly people showed us around, and everything was clean and bright. We stayed for <few> hours and still wanted more. Go early, because it gets busy by noon.",
        "<city>|friendly|clean|noon|<few>",
        "amazing|recommend|visit",
    ),
    Brief(
        "prose",
        "Write a short review of a <gift> that broke too soon.",
        "I liked this <gift> for a week. Then a seam came loose, and the shop in <city> would not take it back. The colour is pretty, but save your money and buy one that lasts.",
        "<gift>|week|<city>|colour",
        "bad|quality|disappointed",
    ),
    Brief(
        "prose",
        "Invite the neighbours to a <season> party in the yard.",
        "Dear neighbours, on <day> at <hour> we light the fire in the yard. There will be <dish>, <drink> and music. Bring a chair and a good mood, and tell <name> how many of you will come.",
        "<dish>|<drink>|music|chair|<name>",
        "party|fun|celebrate",
    ),
    Brief(
        "prose",
        "Write a thank you note to <name> for a <gift>.",
        "Dear <name>, thank you so much for the <gift>. It has found its place next to my bed, and I smile each time I see it. You know me well.",
        "<gift>|smile|bed|<name>",
        "love|wonderful|present",
    ),
    Brief(
        "prose",
        "Write an apology to <name> for missing the <hobby> class.",
        "Dear <name>, I am sorry that I missed the <hobby> class on <day>. My train stood still for an hour. Next week I will take an earlier one and bring <drink> for everybody.",
        "<hobby>|train|<day>|<drink>",
        "apologize|late|forgive",
    ),
    Brief(
        "prose",
        "Write a weather report for <city>.",
        "In <city> the morning is cold and foggy. Around noon the sun breaks through, with a weak wind from the west. Rain returns in the evening, so take an umbrella if you go out late.",
        "foggy|wind|umbrella|sun|<city>",
        "degrees|forecast|cloudy",
    ),
    Brief(
        "prose",
        "Write a diary entry of a <job> after a long day.",
        "Up at <hour>, and on my feet ever since. As a <job> I talk to half of <city> before lunch. Today an old man gave me a <gift> for my help, and I was happy all the way home.",
        "<job>|lunch|<gift>|happy|home",
        "tired|work|exhausted",
    ),
    Brief(
        "prose",
        "Describe a <room> to somebody who cannot see it.",
        "The <room> is small and warm. A lamp stands left of the door and hums a little. Under the window there is a soft bench that smells of old wood. Your steps sound dull on the carpet.",
        "lamp|window|bench|carpet|door",
        "see|look|colour",
    ),
    Brief(
        "prose",
        "Write a toast for the retirement of <name>, a <job>.",
        "Friends, for thirty years <name> was the best <job> we could wish for. We learned patience from you, and a few bad jokes. Now the garden calls. Raise your glasses to rest, health and long mornings!",
        "patience|garden|jokes|glasses|<job>",
        "retirement|congratulations|career",
    ),
    Brief(
        "prose",
        "Write a radio advert for a <shop> in <city>.",
        "Smell that? It is morning at the <shop> on Mill Street in <city>. We open at <hour>, and the first ten guests get a free cup of <drink>. Come by, stay a while, bring a friend.",
        "<drink>|guests|friend|morning|free",
        "best|sale|discount",
    ),
    Brief(
        "prose",
        "Write a text message to <name>: the <sport> training is moved to <day>.",
        "Hi <name>, training is moved to <day> at <hour>. Same hall, same coach. Bring your shoes and a towel, and let me know if you need a lift.",
        "<day>|towel|coach|lift|hall",
        "<sport>|cancelled|postponed",
    ),
    Brief(
        "prose",
        "Write an announcement for passengers: the train to <city> is delayed.",
        "Attention please. The train to <city> will leave about <few> hours late because of snow on the line. Hot <drink> is served free of charge in the waiting hall. We ask for your patience.",
        "snow|<drink>|<city>|patience|hall",
        "delayed|apologise|platform",
    ),
    Brief(
        "prose",
        "Explain how to water a <plant> without drowning it.",
        "Push a finger into the soil. If it feels dry, give the <plant> one cup and wait until the saucer is empty. If it feels damp, leave it alone for a day. In winter it needs half as much.",
        "soil|cup|saucer|damp|<plant>",
        "water|overwatering|drainage",
    ),
    Brief(
        "prose",
        "Tell a small fable about a <pet> and a crow.",
        "A crow laughed at a <pet> for being slow. One night the crow flew into a net, and the <pet> bit through the ropes. From then on the crow laughed only at its own jokes.",
        "crow|net|ropes|laughed",
        "moral|friend|helped",
    ),
    Brief(
        "prose",
        "Write the opening of a mystery set in a <place>.",
        "The lights in the <place> went out at <hour>. When they came back, the clock was gone and <name> stood on the stairs with wet shoes. Nobody asked the right question, except the <pet>.",
        "clock|stairs|shoes|<name>|lights",
        "murder|detective|suddenly",
    ),
    Brief(
        "prose",
        "Write a product text for a <colour> <gift>.",
        "This <colour> <gift> is made by hand from local wool and wood. It weighs little, lasts for years and comes in a plain paper box. A small gift with a long life.",
        "wool|hand|box|<colour>|years",
        "perfect|beautiful|quality",
    ),
    Brief(
        "prose",
        "Write a job advert: we need a <job> in <city>.",
        "We are looking for a <job> in <city>, four days a week. You are calm, careful and good with people. We pay fairly, share the profit and close early on <day>. Write to <name> by the end of <month>.",
        "calm|fairly|profit|<name>|<month>",
        "team|experience|salary",
    ),
    Brief(
        "prose",
        "Give one tip for people who start with <hobby>.",
        "Start with ten minutes of <hobby> each day, at the same hour, in the same corner. Small steps become a habit, and a habit needs no courage.",
        "habit|corner|minutes|courage",
        "practice|learn|beginner",
    ),
    Brief(
        "prose",
        "Describe the taste of a <fruit> to somebody who never had one.",
        "At first a <fruit> is sweet and cool on the tongue. Then comes something sharp that makes you blink. The skin gives a little bite, and the juice runs down your chin before you can stop it.",
        "tongue|sharp|skin|juice|sweet",
        "delicious|flavor|tasty",
    ),
    Brief(
        "prose",
        "Explain to a colleague why we make backups.",
        "Disks die, people click on wrong buttons, and thieves like laptops. With a copy in another building we lose one day of work at most. Without it we lose the firm. Test the copy once a month.",
        "copy|disks|building|month|thieves",
        "data|backup|important",
    ),
    Brief(
        "prose",
        "Write a short biography of <name>, who plays the <instrument>.",
        "<name> was born in <city> and first touched a <instrument> at the age of six. After years in small bars came a concert that nobody forgot. Today <name> teaches, travels and still hates scales.",
        "bars|concert|scales|<instrument>|<city>",
        "famous|musician|talented",
    ),
]

MAILS = [
    Brief(
        "mail",
        "Write an e-mail to <name> that asks for a quiet room in <city>.",
        "Dear <name>,\n\nI will be in <city> from <day> on and would like a quiet room with a desk. Breakfast is not needed. Could you tell me the price for <few> nights?\n\nKind regards,\n<other>",
        "quiet|desk|breakfast|nights|price",
        "hotel|book|available",
    ),
    Brief(
        "mail",
        "Write an e-mail to <name>: you want to return a <gift> that came broken.",
        "Hello <name>,\n\nthe <gift> arrived on <day> with a crack in it. I kept the box and took photos. Please send a new one or give me my money back.\n\nBest wishes,\n<other>",
        "crack|photos|box|money|<gift>",
        "broken|refund|damaged",
    ),
    Brief(
        "mail",
        "Write an e-mail to the class of <name> about a trip to the <place>.",
        "Dear parents,\n\non <day> we go to the <place>. Please pack water, a warm coat and a small lunch.\n\nThe bus leaves at <hour> and is back before dark. Each child needs four euros.\n\nYours,\n<name>",
        "bus|coat|lunch|euros|water",
        "trip|school|excursion",
    ),
    Brief(
        "mail",
        "Write an e-mail to your boss <name> that asks for a free <day>.",
        "Hi <name>,\n\nmay I take <day> off? My sister moves to <city>, and she has a heavy <instrument> and no lift.\n\nMy tasks are done, and <other> will answer the phone.\n\nThanks,\nRobin",
        "sister|phone|tasks|<other>|<city>",
        "vacation|leave|holiday",
    ),
    Brief(
        "mail",
        "Write an e-mail to your landlord <name> about the cold <room>.",
        "Dear <name>,\n\nthe heater in the <room> has been cold since <day>. We have tried every knob, and still it is freezing.\n\nPlease send somebody before the weekend. I am at home after <hour>.\n\nRegards,\n<other>",
        "heater|knob|weekend|freezing|<room>",
        "broken|fix|urgent",
    ),
    Brief(
        "mail",
        "Write an e-mail that invites <name> to give a talk about <hobby>.",
        "Dear <name>,\n\nour club in <city> would be glad to hear you speak about <hobby> on the first <day> of <month>.\n\nWe pay your ticket and a warm meal. Forty people will come, and all of them ask questions.\n\nYours truly,\n<other>",
        "club|ticket|meal|questions|<month>",
        "invite|honor|presentation",
    ),
]

LISTS = [
    Brief(
        "list",
        "List what to pack for a weekend with a <vehicle> in <season>.",
        "- a warm sweater\n- a torch and spare batteries\n- bread, cheese and apples\n- a map of the region\n- a raincoat",
        "torch|map|bread|raincoat|batteries",
        "tent|phone|charger",
    ),
    Brief(
        "list",
        "List steps to clean a <room>.",
        "- Open the window.\n- Carry out the rubbish.\n- Wipe all shelves from top to bottom.\n- Sweep the floor.\n- Put a fresh towel by the door.",
        "window|shelves|sweep|towel|rubbish",
        "clean|dust|vacuum",
    ),
    Brief(
        "list",
        "List steps to make <drink> for <few> guests.",
        "- Warm the pot with hot water.\n- Measure a spoon for each guest.\n- Pour, stir and cover it.\n- Wait for some minutes.\n- Serve it with a slice of <fruit>.",
        "spoon|stir|pot|<fruit>|minutes",
        "boil|enjoy|sugar",
    ),
    Brief(
        "list",
        "Give reasons to learn the <instrument>.",
        "- It trains your memory.\n- It calms you after a hard day.\n- You meet people who play too.\n- Nobody can take it from you.",
        "memory|calms|people|play",
        "fun|skill|music",
    ),
    Brief(
        "list",
        "Give tips for a <sport> match in the rain.",
        "- Tie your laces twice.\n- Keep passes short and low.\n- Bring a second shirt.\n- Warm up longer than usual.\n- Laugh when you fall.",
        "laces|passes|shirt|laugh",
        "wet|slippery|safe",
    ),
    Brief(
        "list",
        "Suggest names for a <pet> that likes to sleep.",
        "- Pillow\n- Mister Snooze\n- Lady Blanket\n- Dozy\n- Captain Nap",
        "pillow|captain|lady|dozy",
        "sleepy|<pet>",
    ),
    Brief(
        "list",
        "Write a shopping list for <dish> and something sweet.",
        "- two onions\n- a bag of flour\n- salt and pepper\n- fresh herbs\n- butter\n- one ripe <fruit>",
        "onions|flour|butter|<fruit>|herbs",
        "milk|eggs|sugar",
    ),
    Brief(
        "list",
        "List rules for guests of a quiet <place>.",
        "- Speak in a low voice.\n- Leave wet coats at the door.\n- No food beyond the hall.\n- Put things back where you found them.",
        "voice|coats|food|hall",
        "please|respect|phone",
    ),
    Brief(
        "list",
        "List questions to ask before you buy a <vehicle>.",
        "- How old is it?\n- Who owned it before?\n- When was the last repair?\n- May I try it for an hour?\n- What does it cost a month?",
        "repair|owned|hour|month|cost",
        "price|insurance|mileage",
    ),
    Brief(
        "list",
        "List signs that a <plant> wants more light.",
        "- Its stems grow long and thin.\n- New leaves stay small and pale.\n- It leans to the window.\n- Old leaves drop.",
        "stems|leaves|window|pale",
        "sun|light|yellow",
    ),
]

POEMS = [
    Brief(
        "poem",
        "Write a poem about <season> in <city>.",
        "The roofs of <city> hold their breath,\na bell rings twice and then is still.\nA window opens, someone laughs,\nand light runs slowly down the hill.",
        "roofs|bell|window|hill|light",
        "snow|sun|warm",
    ),
    Brief(
        "poem",
        "Write a poem about a <pet> by the fire.",
        "My <pet> lies close beside the flame\nand dreams of mice without a name.\nThe clock goes round, the kettle sings,\nhe does not care for such small things.",
        "kettle|clock|flame|dreams",
        "warm|sleep|cosy",
    ),
    Brief(
        "poem",
        "Write a poem about a <vehicle> that will not start.",
        "I turned the key, I kicked the wheel,\nI spoke kind words to rusty steel.\nThe <vehicle> coughed and then was dumb,\nso here on foot at last I come.",
        "key|wheel|steel|foot",
        "engine|broken|road",
    ),
    Brief(
        "poem",
        "Write a short poem in three lines about <plant> on a balcony.",
        "Green above the street,\nthe <plant> drinks a grey morning.\nOne bee finds the way.",
        "bee|street|morning|green",
        "sun|flower|leaf",
    ),
    Brief(
        "poem",
        "Write a poem to the <instrument> of <name>, who plays at night.",
        "Dear <instrument>, it is past ten,\nand <name> picks you up again.\nThe walls are thin, the tune is long,\nmy pillow knows the whole sad song.\nTomorrow I shall buy some wool\nand stuff my ears until they are full.",
        "pillow|walls|wool|tune|ears",
        "loud|noise|music",
    ),
    Brief(
        "poem",
        "Write a farewell poem for a <job> called <name>.",
        "You leave the keys, you take your hat,\nyou say goodbye to this and that.\nWho else will know where all things are?\nDear <name>, do not go too far.",
        "keys|hat|far|goodbye",
        "miss|friend|thank",
    ),
    Brief(
        "poem",
        "Write three lines about rain at the <place>.",
        "Rain taps on the roof,\nthe <place> counts its visitors:\none umbrella, one.",
        "roof|umbrella|visitors|counts",
        "wet|drops|grey",
    ),
    Brief(
        "poem",
        "Write a riddle in verse whose answer is a <fruit>.",
        "I hang up high and hold the sun,\nI wear a coat, but only one.\nInside I keep a heart of stone.\nGuess who I am, and bite the bone.",
        "coat|heart|bite|guess",
        "<fruit>|tree|sweet",
    ),
]

LINES = [
    Brief(
        "line",
        "Write a slogan for a <shop> in <city>.",
        "Small door, big heart, fresh every morning",
        "heart|fresh|door|morning",
        "best|quality",
    ),
    Brief(
        "line",
        "Write a headline for the local paper: a <pet> stops a train near <city>.",
        "Brave <pet> halts night train near <city>",
        "<pet>|train|<city>|brave",
        "stops|hero",
    ),
    Brief(
        "line",
        "Write a title for a book about <hobby> in old age.",
        "Late bloom and steady hand",
        "bloom|hand|steady|late",
        "<hobby>|age|old",
    ),
    Brief(
        "line",
        "Write the subject line of an e-mail about a broken <instrument>.",
        "Cracked <instrument> needs help before <day>",
        "help|<day>|<instrument>",
        "broken|urgent",
    ),
    Brief(
        "line",
        "Write a slogan for a <colour> <vehicle> that runs on rain water.",
        "Drink up the clouds and drive on",
        "clouds|drive|drink",
        "water|rain|green",
    ),
    Brief(
        "line",
        "Give a name and motto to a club of <hobby> fans.",
        "Club of the silent table, where patience wins",
        "silent|table|patience|wins",
        "<hobby>|fans|together",
    ),
    Brief(
        "line",
        "Write a sign for a gate behind which a <pet> lives.",
        "Shut the gate, our <pet> loves to travel",
        "gate|shut|travel|<pet>",
        "beware|please|keep",
    ),
    Brief(
        "line",
        "Write a headline about a <job> who won the lottery.",
        "Lucky <job> buys whole street a round of <drink>",
        "street|lucky|<drink>|round",
        "lottery|wins|million",
    ),
    Brief(
        "line",
        "Write a caption for a photo of <name> on a <vehicle>.",
        "<name> and the <colour> <vehicle>, five minutes before the puddle",
        "puddle|minutes|<colour>",
        "happy|riding|fun",
    ),
    Brief(
        "line",
        "Write a new year wish for a <job>.",
        "May your tools stay sharp, your coffee hot and your Mondays short",
        "tools|coffee|sharp|short",
        "happy|year|health",
    ),
]

DATA = [
    Brief(
        "data",
        "Make a contact card for <name>, a <job> from <city>.",
        '{"name": "<name>", "job": "<job>", "city": "<city>", "languages": ["English", "Polish"]}',
        "<name>|<job>|<city>|Polish",
        "phone",
        _object({"name": TEXT, "job": TEXT, "city": TEXT, "languages": {**TEXTS, "minItems": 2}}),
        "Answer with one JSON object with the keys name, job, city and languages, the last one a list of at least two texts.",
    ),
    Brief(
        "data",
        "Make a recipe card for <dish>.",
        '{"dish": "<dish>", "minutes": 40, "steps": ["Chop the onions.", "Stir in the stock.", "Serve with herbs."]}',
        "onions|serve|<dish>|herbs",
        "salt|sugar",
        _object({"dish": TEXT, "minutes": {**WHOLE, "minimum": 1}, "steps": {**TEXTS, "minItems": 3, "maxItems": 3}}),
        "Answer with a JSON object: dish is a text, minutes a whole number, steps a list of exactly three texts.",
    ),
    Brief(
        "data",
        "Describe a <colour> <vehicle> for a database.",
        '{"kind": "<vehicle>", "colour": "<colour>", "wheels": 4, "sold": false}',
        "<vehicle>|<colour>|false",
        "price",
        _object({"kind": TEXT, "colour": TEXT, "wheels": WHOLE, "sold": YES_NO}, additionalProperties=False),
        "Reply in JSON with the keys kind, colour, wheels (a whole number) and sold (true or false), and no others.",
    ),
    Brief(
        "data",
        "Plan a <sport> evening on <day>.",
        '{"day": "<day>", "place": "<city>", "players": ["<name>", "<other>"], "note": "Bring water."}',
        "<day>|<city>|water|<name>",
        "time",
        _object({"day": {"enum": list(WEEKDAYS)}, "place": TEXT, "players": {**TEXTS, "minItems": 2}, "note": TEXT}),
        "Give it as a JSON object with day (a weekday), place, players (a list of two or more names) and note.",
    ),
    Brief(
        "data",
        "Rate a <gift> that you bought in <city>.",
        '{"item": "<gift>", "stars": 4, "good": "soft and light", "bad": "the lid squeaks"}',
        "<gift>|soft|lid|light",
        "price",
        _object({"item": TEXT, "stars": {**WHOLE, "minimum": 1, "maximum": 5}, "good": TEXT, "bad": TEXT}),
        "The reply is a JSON object: item, stars from 1 to 5 as a whole number, good and bad as short texts.",
    ),
    Brief(
        "data",
        "Name three songs for a concert with <instrument>.",
        '["Harbour in the fog", "Two left shoes", "Goodnight, <city>"]',
        "fog|shoes|<city>|harbour",
        "love|night song",
        {"kind": "json", "schema": {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 3}},
        "Answer with a JSON list of exactly three texts.",
    ),
    Brief(
        "data",
        "Make a cleaning plan for the <room>, three tasks with the person who does each.",
        "| task | who |\n|---|---|\n| sweep the floor | <name> |\n| wash the windows | <other> |\n| empty the bin | <name> |",
        "windows|floor|bin|<name>",
        "clean|date",
        MARKDOWN,
        "Answer with a Markdown table and nothing else.",
    ),
    Brief(
        "data",
        "Compare three fruits by colour and season.",
        "| fruit | colour | season |\n|---|---|---|\n| cherry | red | June |\n| plum | purple | August |\n| <fruit> | yellow | <month> |",
        "cherry|plum|<fruit>|purple",
        "apple|price",
        MARKDOWN,
        "Give only a table in Markdown.",
    ),
    Brief(
        "data",
        "List the opening hours of a <shop> on two days.",
        "| day | opens | closes |\n|---|---|---|\n| <day> | <hour> | noon |\n| next day | <hour> | sunset |",
        "<day>|opens|closes|noon",
        "closed",
        MARKDOWN,
        "The answer must be a Markdown table.",
    ),
    Brief(
        "data",
        "Write an order of a <shop>: three items with amounts.",
        "item,amount\n<fruit> jam,4\npaper bags,200\n<drink>,12",
        "jam|bags|<drink>|amount",
        "price|total",
        CSV,
        "Answer as CSV with a header line.",
    ),
    Brief(
        "data",
        "Write down who plays what at the school concert of <city>.",
        "name,instrument\n<name>,<instrument>\n<other>,harp\nRobin,tuba",
        "harp|tuba|<name>|<instrument>",
        "song",
        CSV,
        "Give the reply as CSV text: a header line and one line for each player.",
    ),
    Brief(
        "data",
        "Make a table of two possible days for the <hobby> meeting and their hosts.",
        "day,host,room\n<day>,<name>,<room>\nholiday,<other>,attic",
        "<day>|<name>|attic|host",
        "time",
        CSV,
        "It has to be CSV with the header day,host,room.",
    ),
    Brief(
        "data",
        "Make up a web address for a <shop> in <city>.",
        "https://www.little-<shop>-shop.example/welcome",
        "<shop>|little|welcome",
        "home|index",
        {"kind": "format", "is": "url"},
        "Answer with one complete URL and nothing else.",
    ),
    Brief(
        "data",
        "Make up an e-mail address for a <job> who loves <hobby>.",
        "happy.<job>@<hobby>.example",
        "<job>|<hobby>|happy",
        "contact|info",
        {"kind": "format", "is": "email"},
        "Answer with an e-mail address only.",
    ),
    Brief(
        "data",
        "Pick a date in <month> 2031 for the <season> fair.",
        "2031-<number>-17",
        "2031|17",
        "",
        {"kind": "format", "is": "date"},
        "Write only the date, in the form YYYY-MM-DD.",
    ),
    Brief(
        "data",
        "Guess how many seats the <place> of <city> has.",
        "1840",
        "18|40",
        "",
        {"kind": "format", "is": "number"},
        "Answer with a number in digits alone, without commas.",
    ),
]

BRIEFS = [*PROSE, *MAILS, *LISTS, *POEMS, *LINES, *DATA]
_MONTHS = "January February March April May June July August September October November December".split()
_SPELLED = "zero one two three four five six seven eight nine ten".split()
_USUAL = ["very", "really", "just", "the", "and", "you", "not", "great", "nice", "is", "!", ",", "so"]
_LETTERS = "jkvbpygfwmucldrhsnioate"  # from rare to frequent; q, x and z are no loss

KINDS: dict[str, list[str]] = {
    "prose": "words characters sentences contains contains lacks starts_with ends_with lacks_letter case".split(),
    "mail": "words paragraphs paragraphs contains contains lacks starts_with ends_with lacks_letter".split(),
    "list": "words bullets bullets bullets contains contains lacks lacks_letter characters case".split(),
    "poem": "words lines lines lines contains contains lacks starts_with ends_with lacks_letter case".split(),
    "line": "words characters contains contains lacks starts_with ends_with lacks_letter case case".split(),
    "data": "contains contains characters lacks lacks_letter lines".split(),
}


def written(rng: random.Random, copies: int = 6) -> Iterator[tuple[str, str, list[Rule]]]:
    """(request, answer, rules): every brief so many times, with other slots and other rules."""
    for brief in BRIEFS:
        for _ in range(copies if brief.form != "data" else max(1, copies - 1)):
            fill = _filler(rng)
            answer, rules, told = _ruled(brief, fill, rng)
            yield _worded(fill(brief.ask), told, rng), answer, rules


def _filler(rng: random.Random) -> Callable[[str], str]:
    values = {slot: rng.choice(known) for slot, known in SLOTS.items()}
    values["other"] = rng.choice([name for name in NAMES if name != values["name"]])
    values["number"] = f"{_MONTHS.index(values['month']) + 1:02}"
    return lambda text: re.sub(r"<(\w+)>", lambda found: values[found[1]], text)


def _ruled(brief: Brief, fill: Callable[[str], str], rng: random.Random) -> tuple[str, list[Rule], list[str]]:
    answer = fill(brief.answer)
    keys, taboo = fill(brief.keys).split("|"), [word for word in fill(brief.taboo).split("|") if word]
    rules, told = ([brief.core], [brief.core_words]) if brief.core else ([], [])
    many = rng.choice([2, 3, 3, 4, 4, 5])
    kinds = list(KINDS[brief.form])
    rng.shuffle(kinds)
    taken = {rule["kind"] for rule in rules}
    # First or not at all: the other rules are read off the text in its case.
    kinds = [*(["case"] if "case" in kinds[:many] else []), *(kind for kind in kinds if kind != "case")]
    for kind in kinds:
        if len(rules) >= many:
            break
        if kind in taken or (kind == "words" and "characters" in taken) or (kind == "characters" and "words" in taken):
            continue
        made = _MAKERS[kind](answer, brief, keys, taboo, rng)
        if made is not None:
            rule, words, answer = made
            taken.add(kind)
            rules.append(rule)
            told.append(words)
    return answer, rules, told


def _worded(ask: str, told: list[str], rng: random.Random) -> str:
    way = rng.randrange(4)
    if way == 0 and len(told) > 2:
        return f"{ask} Rules:\n" + "\n".join(f"{i}. {one}" for i, one in enumerate(told, 1))
    if way == 1:
        return f"{' '.join(told[1:])} {told[0]} This is the request: {ask}".strip()
    return " ".join([ask, *told])


Made = tuple[Rule, str, str] | None


def _words(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    count = len([word for word in answer.split() if any(c.isalnum() for c in word)])
    most = len(answer.split()) + rng.randint(2, 3 + count // 6)  # however dashes are counted
    if brief.form != "line" and rng.random() < 0.4:
        least = max(3, count - rng.randint(2, 4 + count // 5))
        if rng.random() < 0.4:
            return (
                _bounds("words", least),
                rng.choice([f"Write at least {least} words.", f"Use {least} words or more."]),
                answer,
            )
        said = [f"Write between {least} and {most} words.", f"The length must be {least} to {most} words."]
        return _bounds("words", least, most), rng.choice(said), answer
    said = [
        f"Use at most {most} words.", f"Keep it to {most} words or fewer.", f"No more than {most} words, please.",
        f"Stay within {most} words.",
    ]  # fmt: skip
    return _bounds("words", None, most), rng.choice(said), answer


def _characters(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    step = 5 if len(answer) < 60 else 10
    most = (len(answer) // step + rng.randint(1, 2)) * step
    said = [
        f"It must fit into {most} characters.", f"At most {most} characters, spaces included.",
        f"Keep it under {most + 1} characters.",
    ]  # fmt: skip
    return _bounds("characters", None, most), rng.choice(said), answer


def _sentences(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    count = len(re.findall(r"[.!?](?=\s|$)", answer))
    if count > 1 and rng.random() < 0.25:
        return _bounds("sentences", None, count), f"No more than {_number(count, rng)} sentences.", answer
    said = [f"Use exactly {_number(count, rng)} sentences.", f"Write it in {_number(count, rng)} sentences."]
    if count == 1:
        said = ["Write a single sentence.", "It must be one sentence."]
    return _bounds("sentences", count, count), rng.choice(said), answer


def _lines(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    count = len(answer.splitlines())
    if brief.core and (count < 3 or brief.core["kind"] == "json"):
        return None
    said = [f"Write exactly {_number(count, rng)} lines.", f"It has {_number(count, rng)} lines, no more and no fewer."]
    if brief.core == MARKDOWN:
        said = [f"With its head and its rule it has exactly {_number(count, rng)} lines."]
    return _bounds("lines", count, count), rng.choice(said), answer


def _paragraphs(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    count = len(answer.split("\n\n"))
    said = [
        f"Write {_number(count, rng)} paragraphs with a blank line between them, greeting and closing included.",
        f"Counting the greeting and the closing there are {_number(count, rng)} paragraphs, with blank lines between them.",
    ]
    return _bounds("paragraphs", count, count), rng.choice(said), answer


def _bullets(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    count = len(answer.splitlines())
    if rng.random() < 0.3:
        least = count - 1
        return (
            _bounds("bullets", least),
            f"Give at least {_number(least, rng)} bullet points, each on a line of its own.",
            answer,
        )
    said = [
        f"Give exactly {_number(count, rng)} bullet points, each on a line that starts with a dash.",
        f"Use {_number(count, rng)} bullet points.",
    ]  # fmt: skip
    return _bounds("bullets", count, count), rng.choice(said), answer


def _contains(answer: str, brief: Brief, keys: list[str], _: list[str], rng: random.Random) -> Made:
    here = [key for key in dict.fromkeys(keys) if _whole(key, answer)]
    twice = [key for key in here if _whole(key, answer) > 1]
    if twice and rng.random() < 0.6:
        word = rng.choice(twice)
        said = [f'Use "{word}" at least twice.', f'The word "{word}" has to occur two times or more.']
        return {"kind": "contains", "texts": [word], "times": 2}, rng.choice(said), answer
    if not here:
        return None
    chosen = rng.sample(here, min(len(here), rng.choice([1, 1, 2, 2, 3])))
    listed = _listed([f'"{word}"' for word in chosen])
    if len(chosen) == 1:
        said = [f"Mention {listed}.", f"The word {listed} must occur.", f"Work in {listed}."]
    else:
        said = [f"Mention {listed}.", f"The words {listed} must all occur.", f"Work in {listed}."]
    return {"kind": "contains", "texts": chosen}, rng.choice(said), answer


def _lacks(answer: str, brief: Brief, keys: list[str], taboo: list[str], rng: random.Random) -> Made:
    lower = answer.lower()
    fit = [word for word in taboo if word.lower() not in lower]
    if fit and rng.random() < 0.7:
        chosen = rng.sample(fit, min(len(fit), rng.choice([1, 2])))
    else:
        usual = [word for word in _USUAL if word not in lower and not (brief.core and word in "!,")]
        if not usual:
            return None
        chosen = [rng.choice(usual)]
    if chosen == ["!"]:
        said = ["Do without exclamation marks.", "No exclamation mark, please."]
    elif chosen == [","]:
        said = ["Do not use commas.", "There must be no comma in it."]
    else:
        listed = _listed([f'"{word}"' for word in chosen], "or")
        said = [f"Do not use {listed}.", f"Avoid {listed}.", f"You must not write {listed}."]
    return {"kind": "lacks", "texts": chosen}, rng.choice(said), answer


def _starts_with(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    text = answer.splitlines()[0]
    if brief.form != "mail":
        text = " ".join(answer.split()[: rng.choice([1, 2, 3])]).rstrip(".,:;?!")
    said = [f'Begin with "{text}".', f'The first words are "{text}".', f'Start it with "{text}".']
    return {"kind": "starts_with", "text": text}, rng.choice(said), answer


def _ends_with(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    text = answer.splitlines()[-1]
    if brief.form != "mail":
        text = " ".join(text.split()[-rng.choice([1, 2, 3]) :])
    said = [f"End with “{text}”", f"The last words must be “{text}”", f"Close with “{text}”"]
    return {"kind": "ends_with", "text": text}, f"{rng.choice(said)}, with nothing after it.", answer


def _case(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    case = rng.choice(["lower", "upper", "title", "title"] if brief.form == "line" else ["lower", "lower", "upper"])
    said = {
        "lower": ["Write everything in lower case.", "Do not use a single capital letter."],
        "upper": ["Write it in capital letters only.", "USE CAPITAL LETTERS THROUGHOUT."],
        "title": ["Every word begins with a capital letter, the rest is small.", "Write It In Title Case, small words too."],
    }  # fmt: skip
    changed = {"lower": answer.lower(), "upper": answer.upper(), "title": answer.title()}[case]
    return {"kind": "case", "is": case}, rng.choice(said[case]), changed


def _lacks_letter(answer: str, brief: Brief, _: list[str], __: list[str], rng: random.Random) -> Made:
    absent = [letter for letter in _LETTERS if letter not in answer.lower()]
    if not absent:
        return None
    letter = absent[-1] if rng.random() < 0.6 else rng.choice(absent[-4:])
    said = [
        f'Do not use the letter "{letter}" anywhere.', f'The letter "{letter}" is not allowed.',
        f'Do without the letter "{letter}".',
    ]  # fmt: skip
    return {"kind": "lacks_letter", "letter": letter}, rng.choice(said), answer


_MAKERS: dict[str, Callable[..., Made]] = {
    "words": _words, "characters": _characters, "sentences": _sentences, "lines": _lines, "paragraphs": _paragraphs,
    "bullets": _bullets, "contains": _contains, "lacks": _lacks, "starts_with": _starts_with, "ends_with": _ends_with,
    "case": _case, "lacks_letter": _lacks_letter,
}  # fmt: skip


def _bounds(kind: str, least: int | None, most: int | None = None) -> Rule:
    rule: Rule = {"kind": kind}
    if least is not None:
        rule["at_least"] = least
    if most is not None:
        rule["at_most"] = most
    return rule


def _whole(word: str, text: str) -> int:
    return len(re.findall(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))


def _number(n: int, rng: random.Random) -> str:
    return _SPELLED[n] if n < len(_SPELLED) and rng.random() < 0.6 else str(n)


def _listed(items: Iterable[str], last: str = "and") -> str:
    *most, end = items
    return f"{', '.join(most)} {last} {end}" if most else end


def rows(rng: random.Random) -> Iterator[dict[str, Any]]:
    """The task's rows."""
    for request, answer, rules in written(rng):
        assert len(rules) >= 2, (request, rules)
        for rule in rules:
            if rule["kind"] == "json":
                json.loads(answer)
        yield {"request": request, "answer": answer, "constraints": rules}
