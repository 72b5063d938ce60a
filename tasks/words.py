"""Our own word lists, from which the tasks' data are made."""

NOUNS = """
apple table river mountain teacher garden window bridge doctor letter flower engine pencil button carpet candle hammer
ladder pillow rocket saddle tunnel valley wallet basket bottle camera dollar forest guitar helmet island jacket kitten
lemon mirror needle orange parrot rabbit sailor tiger turtle violin wagon zebra anchor barrel cannon desert eagle farmer
glove hotel insect jewel kettle lizard market napkin ocean palace queen ribbon spider ticket uncle village whistle author
blanket cabin dragon elbow feather ghost hunter icon journal kingdom lantern magnet nation oven paddle quilt robot shadow
temple umbrella vessel winter yard apron beetle circle driver eraser fountain hill jungle knee lamp motor neighbor olive
planet question road student train vegetable wheel castle chain cloud coin corner crown dentist dinner door drum egg farm
finger flag floor game gate goat hand horse idea king lake map mask moon nail nest night nose owl pan park path pen pig
plane plant plate pond pool ring rope sail seed ship shirt shoe song spoon star stone street sun sword tail tank tent toe
tool town toy tree truck tube wall war wave wing worm year actor arrow badge banana beard bird boat bone book cake car cat
chair clock coat cook cow cup desk dog duck ear box fox bus class dress kiss boss cross brush dish wish bush lash peach
beach bench branch church watch match witch sandwich city baby lady party story cherry berry family country factory
library enemy army body copy diary duty fairy hobby jelly lily memory penny puppy spy butterfly strawberry day key boy
monkey donkey turkey chimney journey piano photo radio video zoo kangaroo roof chief cliff belief giraffe ditch couch
virus lens tax suffix waltz bakery canary cavity ferry pony ruby treaty alley trolley essay tray
""".split()

IRREGULAR_PLURALS = dict(
    pair.split(":")
    for pair in """
man:men woman:women child:children tooth:teeth foot:feet mouse:mice goose:geese ox:oxen person:people louse:lice
leaf:leaves wolf:wolves knife:knives life:lives wife:wives half:halves shelf:shelves calf:calves loaf:loaves
thief:thieves elf:elves potato:potatoes tomato:tomatoes hero:heroes echo:echoes sheep:sheep deer:deer series:series
species:species cactus:cacti fungus:fungi crisis:crises analysis:analyses thesis:theses oasis:oases
phenomenon:phenomena criterion:criteria salmon:salmon aircraft:aircraft policeman:policemen fireman:firemen
grandchild:grandchildren stepchild:stepchildren wolfman:wolfmen businesswoman:businesswomen quiz:quizzes
bacterium:bacteria hypothesis:hypotheses diagnosis:diagnoses parenthesis:parentheses offspring:offspring
""".split()
)

VERBS = """
ask answer walk talk jump help open close clean cook dance learn listen look move need order paint play pull push rain
reach remember return save share shout smile start stay touch travel turn visit wait want warn wash watch wish work
worry yell zoom accept add admire agree allow appear arrive attack bake behave believe belong blame borrow bounce breathe
burn call care carry cause change chase check cheer chew climb collect combine compare complain connect consider cough
count cover crash crawl cry damage decide deliver depend describe deserve destroy disappear discover divide dress dry
earn educate employ empty encourage enjoy enter escape examine excuse exist expect explain explode express fail fasten
fetch file fill finish float follow fold force frighten gather glow greet guess hammer hand handle happen hate heal heat
hope hurry identify imagine improve include increase inform intend invent invite itch join joke judge kick kill kiss
knock label land last laugh launch lick lift lighten like live load lock love manage mark marry match measure melt
memorize mend mix multiply name notice obey observe offer own park pass pause phone pick place please point polish pour
practice pray prepare present prevent print promise protect prove punish question race raise realize receive record
reduce reflect refuse relax release rely remain remind remove repair repeat replace reply report rescue rest rinse roll
ruin rush scare scatter scream search settle shelter shock sign sniff snow sparkle spell spill spoil squeeze
stare stretch study suffer suggest supply support suppose surprise surround suspect taste tease thank tickle tie tire
train treat tremble try twist type unite unlock use vanish wander waste water wave weigh welcome whisper whistle wink
wonder yawn
""".split()

IRREGULAR_PAST = dict(
    pair.split(":")
    for pair in """
go:went see:saw take:took come:came give:gave find:found think:thought tell:told become:became leave:left feel:felt
bring:brought begin:began keep:kept hold:held write:wrote stand:stood hear:heard mean:meant meet:met run:ran pay:paid
sit:sat speak:spoke lie:lay lead:led grow:grew lose:lost fall:fell send:sent build:built understand:understood draw:drew
break:broke spend:spent drive:drove buy:bought wear:wore choose:chose eat:ate fly:flew sing:sang swim:swam sleep:slept
teach:taught throw:threw win:won forget:forgot hide:hid ride:rode rise:rose shake:shook steal:stole catch:caught
drink:drank fight:fought freeze:froze know:knew ring:rang sell:sold shoot:shot sink:sank stick:stuck strike:struck
swear:swore sweep:swept tear:tore wake:woke weep:wept bite:bit blow:blew dig:dug feed:fed flee:fled forgive:forgave
hang:hung kneel:knelt lend:lent seek:sought shrink:shrank slide:slid spin:spun spring:sprang swing:swung bend:bent
stop:stopped plan:planned beg:begged grab:grabbed hug:hugged rob:robbed slip:slipped trap:trapped clap:clapped
chat:chatted drop:dropped jog:jogged nod:nodded pat:patted shop:shopped skip:skipped tap:tapped trim:trimmed
""".split()
)

ANTONYMS = """
hot:cold big:small/little tall:short fast:slow happy:sad rich:poor old:young/new early:late hard:soft/easy heavy:light
dark:light/bright full:empty open:closed/shut clean:dirty dry:wet near:far high:low deep:shallow wide:narrow thick:thin
loud:quiet/silent strong:weak sharp:blunt/dull rough:smooth sweet:sour/bitter fresh:stale/rotten true:false right:wrong/left
good:bad/evil better:worse best:worst first:last inside:outside above:below over:under up:down in:out on:off before:after
always:never often:rarely/seldom more:less most:least many:few all:none everything:nothing everybody:nobody day:night
morning:evening summer:winter north:south east:west top:bottom front:back start:end/finish/stop begin:end/finish
come:go arrive:leave/depart enter:exit/leave push:pull give:take buy:sell lend:borrow win:lose find:lose love:hate
laugh:cry live:die sit:stand sleep:wake rise:fall/set increase:decrease/reduce grow:shrink build:destroy/demolish
create:destroy attack:defend accept:refuse/reject/decline agree:disagree allow:forbid/prohibit/ban appear:disappear/vanish
ask:answer/reply catch:throw/drop close:open/far connect:disconnect/separate cover:uncover/reveal
hide:show/reveal follow:lead forget:remember forgive:blame/punish freeze:melt/thaw hire:fire/dismiss join:leave/separate
lock:unlock lower:raise/higher pass:fail praise:criticize/blame/criticise save:spend/waste send:receive shout:whisper
succeed:fail teach:learn tighten:loosen trust:distrust/doubt warm:cool wake:sleep wrap:unwrap able:unable
absent:present active:passive/inactive alive:dead ancient:modern asleep:awake attractive:ugly/repulsive/unattractive
beautiful:ugly bitter:sweet bold:timid/shy borrow:lend brave:cowardly/afraid/scared broad:narrow calm:nervous/excited/stormy/agitated
careful:careless cheap:expensive/dear clever:stupid/foolish clear:unclear/cloudy/vague common:rare/uncommon
complete:incomplete complex:simple comfortable:uncomfortable correct:incorrect/wrong cruel:kind curved:straight
dangerous:safe dead:alive deliberate:accidental different:same/similar/alike difficult:easy/simple dim:bright
dishonest:honest domestic:foreign/wild eager:reluctant/unwilling elegant:clumsy empty:full equal:unequal even:odd/uneven
external:internal fair:unfair/dark familiar:unfamiliar/strange famous:unknown/obscure fat:thin/slim fertile:barren/infertile
final:first/initial flexible:rigid/stiff/inflexible formal:informal/casual fortunate:unfortunate/unlucky free:captive/busy/occupied
frequent:rare/infrequent friendly:unfriendly/hostile future:past generous:stingy/mean/selfish gentle:rough/harsh
giant:tiny/dwarf/small glad:sad/sorry graceful:clumsy/awkward gradual:sudden/abrupt great:small/terrible/awful guilty:innocent
harmful:harmless/beneficial healthy:sick/ill/unhealthy helpful:unhelpful/useless hollow:solid honest:dishonest/lying
huge:tiny/small humble:proud/arrogant important:unimportant/trivial industrious:lazy/idle inferior:superior
innocent:guilty interesting:boring/dull joy:sorrow/sadness/grief junior:senior kind:cruel/unkind/mean large:small/little
lazy:hardworking/diligent/active/energetic legal:illegal liquid:solid logical:illogical long:short loose:tight loyal:disloyal/unfaithful
lucky:unlucky/unfortunate major:minor married:single/unmarried mature:immature maximum:minimum merry:sad/gloomy
natural:artificial/unnatural neat:messy/untidy negative:positive noisy:quiet/silent normal:abnormal/strange obedient:disobedient
optimistic:pessimistic ordinary:extraordinary/special/unusual parallel:perpendicular patient:impatient peace:war/conflict permanent:temporary
plentiful:scarce/rare plural:singular polite:rude/impolite possible:impossible powerful:weak/powerless
pretty:ugly/plain private:public proud:ashamed/humble public:private pure:impure/contaminated quick:slow rapid:slow rare:common/frequent raw:cooked
real:fake/imaginary/unreal regular:irregular relaxed:tense/stressed reliable:unreliable responsible:irresponsible
ripe:unripe rude:polite rural:urban sad:happy/glad/cheerful safe:dangerous/unsafe same:different scared:brave/fearless senior:junior
serious:funny/silly/playful shiny:dull/matte shrink:grow/expand sick:healthy/well silly:serious/sensible sincere:insincere single:married/double/multiple
slim:fat/thick sober:drunk sour:sweet stale:fresh steep:flat/gentle stop:go/start/begin/continue straight:crooked/curved/bent strict:lenient/permissive
stupid:smart/clever/intelligent sudden:gradual superior:inferior tame:wild temporary:permanent tidy:messy/untidy tiny:huge/giant/enormous
tired:energetic/rested transparent:opaque ugly:beautiful/pretty uncle:aunt urban:rural useful:useless vacant:occupied/full
valuable:worthless vertical:horizontal victory:defeat visible:invisible voluntary:compulsory/mandatory/involuntary
wealth:poverty wealthy:poor weak:strong well:badly/ill/sick white:black wild:tame wise:foolish/unwise wonderful:terrible/awful/horrible
worthy:unworthy wrong:right/correct yes:no king:queen brother:sister husband:wife boy:girl man:woman son:daughter
father:mother friend:enemy/foe hero:villain/coward heaven:hell question:answer success:failure profit:loss
entrance:exit arrival:departure birth:death beginning:end/ending strength:weakness truth:lie/falsehood/fiction
hope:despair pleasure:pain/displeasure presence:absence supply:demand freedom:slavery/captivity/imprisonment
knowledge:ignorance courage:fear/cowardice ceiling:floor host:guest employer:employee buyer:seller student:teacher
ally:enemy amateur:professional/expert ascend:descend admit:deny advance:retreat assemble:dismantle/disassemble attract:repel
bless:curse compress:expand/decompress condemn:praise/approve confess:deny conceal:reveal/show/expose construct:destroy/demolish deposit:withdraw
encourage:discourage exhale:inhale expand:contract/shrink export:import fill:empty float:sink include:exclude
inflate:deflate insert:remove/extract lengthen:shorten load:unload maximize:minimize multiply:divide obey:disobey/defy oppose:support
pack:unpack plug:unplug reward:punish/punishment scatter:gather/collect sharpen:blunt/dull simplify:complicate strengthen:weaken
subtract:add tie:untie/loosen unite:divide/separate widen:narrow zip:unzip
""".split()

# Typical adult mass in kilograms, rounded.
ANIMALS = {
    "ant": 0.000003, "bee": 0.0001, "ladybug": 0.00002, "butterfly": 0.0005, "hummingbird": 0.004, "mouse": 0.02,
    "sparrow": 0.03, "hamster": 0.12, "frog": 0.05, "squirrel": 0.4, "pigeon": 0.35, "crow": 0.5, "hedgehog": 0.9,
    "guinea pig": 1.0, "chicken": 2.5, "rabbit": 2.0, "cat": 4.5, "fox": 7.0, "goose": 5.0, "swan": 11.0, "beaver": 20.0,
    "badger": 11.0, "otter": 9.0, "koala": 10.0, "lynx": 22.0, "penguin": 15.0, "wolf": 42.0, "sheep": 75.0, "goat": 45.0,
    "leopard": 60.0, "kangaroo": 55.0, "chimpanzee": 50.0, "panda": 105.0, "pig": 180.0, "lion": 185.0, "tiger": 200.0,
    "gorilla": 160.0, "donkey": 250.0, "polar bear": 450.0, "horse": 500.0, "cow": 650.0, "camel": 500.0, "moose": 450.0,
    "bison": 800.0, "giraffe": 1000.0, "walrus": 1100.0, "hippopotamus": 1800.0, "rhinoceros": 2000.0,
    "orca": 4500.0, "elephant": 5000.0, "humpback whale": 30000.0, "blue whale": 130000.0, "rat": 0.3, "snail": 0.01,
    "spider": 0.001, "owl": 1.5, "eagle": 5.0, "ostrich": 110.0, "dolphin": 150.0, "seal": 120.0, "crocodile": 450.0,
}  # fmt: skip

# Year of the invention, or of its first working form.
INVENTIONS = {
    "compass": 1100, "eyeglasses": 1290, "printing press": 1440, "pocket watch": 1510, "microscope": 1590,
    "telescope": 1608, "barometer": 1643, "pendulum clock": 1656, "piano": 1700, "lightning rod": 1752,
    "steam engine": 1712, "hot air balloon": 1783, "vaccine": 1796, "battery": 1800, "steam locomotive": 1804,
    "tin can": 1810, "stethoscope": 1816, "photography": 1826, "matches": 1826, "telegraph": 1837, "sewing machine": 1846,
    "safety pin": 1849, "dynamite": 1867, "typewriter": 1868, "barbed wire": 1874, "telephone": 1876, "phonograph": 1877,
    "light bulb": 1879, "car": 1885, "zipper": 1893, "cinema": 1895, "radio": 1896, "X-ray machine": 1895, "vacuum cleaner": 1901,
    "airplane": 1903, "tea bag": 1908, "crossword puzzle": 1913, "television": 1927, "penicillin": 1928, "sliced bread": 1928, "jet engine": 1937,
    "ballpoint pen": 1938, "helicopter": 1939, "nuclear reactor": 1942, "microwave oven": 1946, "transistor": 1947,
    "credit card": 1950, "laser": 1960, "communications satellite": 1962, "pocket calculator": 1970, "email": 1971,
    "mobile phone": 1973, "digital camera": 1975, "compact disc": 1982, "World Wide Web": 1989, "text message": 1992,
    "USB stick": 2000, "smartphone": 2007, "tablet computer": 2010, "wheelbarrow": 200, "paper": 105, "gunpowder": 850,
    "bicycle": 1817, "revolver": 1836, "traffic light": 1868, "escalator": 1892, "dishwasher": 1886, "robot vacuum": 1996,
}  # fmt: skip

NAMES = """
Anna Ben Clara David Elena Felix Grace Hugo Irene Jack Karen Leo Maria Noah Olga Paul Rosa Sam Tina Victor Wendy Yusuf Zoe
Amir Bianca Carlos Dora Emil Farah Gina Hans Ivan Julia Kofi Lena Marco Nadia Oscar Priya Quentin Rita Stefan Tara Uma
""".split()

CITIES = """
Oslo Madrid Vienna Lisbon Dublin Prague Athens Warsaw Helsinki Budapest Zurich Hamburg Lyon Turin Seville Krakow Bergen Ghent
Porto Leeds Basel Bremen Malaga Tampere Aarhus Graz Utrecht Nantes
""".split()

TITLES = (
    "quiet golden broken secret last hidden silver lonely forgotten burning frozen gentle crooked distant blue".split(),
    "garden letter river clock piano window lighthouse mirror stranger road kingdom shadow song bridge island lantern".split(),
    "north forest valley sea mountain city castle desert harbour moon village station".split(),
)

SENTIMENT = (
    "the soup|the hotel room|the new phone|this novel|the film|our guide|the blender|the concert|the course|the jacket|"
    "the app|the museum|the train ride|the printer|the breakfast|the keyboard|the play|the service|the tent|the podcast|"
    "the cake|the garden tour|the camera|the lecture|the bakery".split("|"),
    "kept me smiling for days|was worth every cent|exceeded what I had hoped for|did exactly what it promised|"
    "made the whole trip|is the first thing I recommend to friends|never once let us down|left us wanting more|"
    "could hardly have been improved|turned a dull week around|won over even my sceptical brother|"
    "felt like a bargain|was handled with real care|is something I would happily pay for again".split("|"),
    "was a waste of an afternoon|fell apart within a week|made me want my money back|left a bad taste|"
    "could not have come at a worse price|tested everyone's patience|is going straight back to the shop|"
    "was nothing like the pictures|had us leaving early|is the last one I buy from them|"
    "failed exactly when I needed it|promised a lot and delivered none of it|made my headache worse|"
    "was rushed and careless".split("|"),
    "{s} {main}.|{s} {main}, and {o} {main2}.|I admit that {o} {but}, but {s} {main}, and that is what counts.|"
    "everyone told me that {s} {but}; for me it {main}.|not for a moment would I say that {s} {but}: it {main}.|"
    "honestly, {s} {main}.|after two weeks I can say that {s} {main}.|at first {s} {but}, in the end it {main}.".split(
        "|"
    ),
)

TICKETS = (
    [
        "",
        "Hello,",
        "Hi there.",
        "Good morning.",
        "Sorry to bother you.",
        "This is {name}.".replace("{name}", "a returning customer"),
    ],
    {
        "billing": [
            "I was charged twice for order {n}.",
            "The invoice for last month shows {n} seats, but we only have {d}.",
            "Why did the price on my card statement go up by {d} euros?",
            "Please send the receipt for the {d} licences to our {city} office.",
            "My card expires in {d} days, where do I put in the new number?",
            "The discount that {name} promised us is missing from the statement.",
        ],
        "technical": [
            "The app closes by itself {d} seconds after I open it.",
            "Since the update the export button does nothing on our {n} machines.",
            "I get error {n} whenever I upload a photo.",
            "The screen in {city} stays black although the light is on.",
            "Pages take {n} seconds to load since yesterday.",
            "Search finds nothing any more, not even what {name} saved an hour ago.",
        ],
        "shipping": [
            "The parcel was to arrive {d} days ago and is still in {city}.",
            "{n} boxes came, but we had ordered {d} more.",
            "Can you send it to my neighbour {name} instead, I am away.",
            "The tracking page says delivered, yet nobody in {city} has it.",
            "The box was wet and torn when the driver handed it over.",
            "How long does it take until something reaches {city}?",
        ],
        "account": [
            "I cannot log in although I reset the password {d} times.",
            "Please change the e-mail address of {name} to the new one.",
            "{name} has left our team, how do I remove that user?",
            "The code that you text me for signing in never arrives in {city}.",
            "I want to delete my profile and everything in it.",
            "Two of our {n} colleagues share one login, can you split it?",
        ],
        "sales": [
            "We are {n} people in {city}, which plan would you suggest?",
            "Is there a version for schools, and what does it cost?",
            "{name} saw your product at a fair; could we have a demo next week?",
            "Do you give a discount from {n} licences on?",
            "What is the difference between the basic and the large package?",
            "Before we decide: can we try it for {d} weeks?",
        ],
    },
    ["", "Thanks.", "Please help.", "Could you look into it today?", "Best wishes", "I have waited long enough."],
)

FRUIT = """
apple banana cherry grape lemon lime mango orange peach pear pineapple plum strawberry raspberry blueberry apricot kiwi fig
melon papaya
""".split()
OTHER_THINGS = """
spoon candle bread cheese towel book hammer milk rice butter pillow bottle brush coin onion carrot potato lamp pencil
""".split()

WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

# A terse note, the same as a polite message, and which of its parts must be in both.
NOTES = [
    (
        "{name}: meeting now {day} {time}, room {n}. bring the {thing}.",
        "Dear {name}, the meeting is now on {day} at {time} in room {n}. Please bring the {thing}. Thank you!",
        "name day time n thing",
    ),
    (
        "{name}: invoice {number} still open, {euros} euros. pay by {day}.",
        "Dear {name}, invoice {number} over {euros} euros is still open. Could you please pay it by {day}?",
        "name number euros day",
    ),
    (
        "parcel {number} for {name} at the {city} office. pick up before {time} on {day}.",
        "Hello {name}, parcel {number} is at the {city} office. Please pick it up before {time} on {day}. Thank you!",
        "name number city time day",
    ),
    (
        "{name}, train to {city} {day} {time}, platform {n}, don't be late",
        "Dear {name}, the train to {city} leaves on {day} at {time} from platform {n}. Please be there in time.",
        "name city day time n",
    ),
    (
        "{n} {items} missing from order {number}. {name} must send them to {city} by {day}.",
        "Dear {name}, {n} {items} are missing from order {number}. Could you please send them to {city} by {day}?",
        "name n items number city day",
    ),
    (
        "tell {name}: rent {euros} euros, due {day}, account {number}. late again!",
        "Dear {name}, the rent of {euros} euros is due on {day}, account {number}. It was late before; please pay in time.",
        "name euros day number",
    ),
    (
        "{name} - no heating in {city} flat since {day}, {n} degrees inside, call {number} today",
        "Hello {name}, the flat in {city} has had no heating since {day}; it is {n} degrees inside. Please call {number} today.",
        "name city day n number",
    ),
    (
        "{name}: wrong {thing} came. want {items} x {n} as ordered, or {euros} euros back. order {number}",
        "Dear {name}, the wrong {thing} came with order {number}. Please send the {n} {items} that were ordered, or {euros} euros.",
        "name thing items n euros number",
    ),
]

REFUNDS = [
    "Hello, {name} here. I have been waiting {waiting} for my refund of {amount}. Order {number}.",
    "My refund for order {number} is still not here after {waiting}. It is {amount}. {name}",
    "Where is the {amount} you owe me? It has been {waiting}. Ticket {number}, {name}.",
    "Order {number} came broken, I sent it back, and for {waiting} nothing has happened. I want my {amount}! {name}",
    "Dear team, you charged me {amount} twice. I told you {waiting} ago. Customer {number}. Regards, {name}",
    "It's {name} again (customer {number}). {waiting} without an answer. The sum is {amount}.",
    "Good morning! I paid {amount} for order {number} and then cancelled, {waiting} ago. Kind regards, {name}",
]

# Kinds of things, for the word that is of another kind than the rest.
KINDS = {
    "tools": "hammer saw drill wrench chisel pliers screwdriver shovel rake axe".split(),
    "instruments": "violin flute drum trumpet guitar harp cello piano clarinet banjo".split(),
    "clothes": "shirt scarf glove jacket sock hat skirt sweater belt coat".split(),
    "vehicles": "bus truck tram ferry bicycle taxi train canoe scooter van".split(),
    "furniture": "chair table sofa shelf bed desk stool wardrobe bench cupboard".split(),
    "weather": "rain snow hail fog thunder drizzle frost storm sleet wind".split(),
    "body": "elbow knee ankle shoulder wrist chin heel thumb forehead hip".split(),
    "vegetables": "carrot onion spinach cabbage leek turnip celery broccoli radish parsnip".split(),
}

# What somebody says to a house that listens, by what it is about.
COMMANDS = {
    "lights": [
        "make it brighter in the {room}",
        "it is too dark in the {room}",
        "switch everything off in the {room}, I want to sleep",
        "dim the {room} to {n} percent",
        "I can hardly read in the {room}",
        "leave only the small lamp on in the {room}",
    ],
    "heating": [
        "I am freezing in the {room}",
        "make the {room} {n} degrees",
        "it is far too warm in the {room}",
        "turn the radiator in the {room} down a little",
        "keep the {room} cosy until {hour}",
        "why is the {room} so cold",
    ],
    "music": [
        "play something calm in the {room}",
        "skip this one",
        "louder in the {room}, please",
        "put on what {name} likes",
        "stop the song in the {room}",
        "something to dance to in the {room} at {hour}",
    ],
    "reminder": [
        "do not let me forget to call {name} at {hour}",
        "tell me in {n} minutes to take the bread out",
        "wake me at {hour}",
        "{name} has a birthday on {day}, remember that",
        "on {day} at {hour} I must see the dentist",
        "nudge me when {n} minutes are over",
    ],
    "door": [
        "is the front door locked",
        "let {name} in at {hour}",
        "who rang at {hour}",
        "lock up when I leave the {room}",
        "do not open for anybody but {name}",
        "has {name} come home on {day}",
    ],
    "shopping": [
        "we are out of milk, put it on the list",
        "order {n} more eggs",
        "what do I still have to buy for {day}",
        "take the bread off the list, {name} has some",
        "we need {n} bottles of water by {day}",
        "add what {name} asked for to the basket",
    ],
}
ROOMS = "kitchen bedroom hall study bathroom garage attic nursery".split()
