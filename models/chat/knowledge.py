"""What the chat model may know: plain tables, no behaviour.

Everything the generator asks about is written here once, so that a question and the answer that
scores it can never disagree.
"""

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"]

# Thing (with its article) -> its usual colour.
COLOUR_OF = {
    "the sky": "blue", "the sea": "blue", "a blueberry": "blue",
    "grass": "green", "a leaf": "green", "a frog": "green", "a cucumber": "green", "a pea": "green",
    "a banana": "yellow", "a lemon": "yellow", "the sun": "yellow", "a chick": "yellow", "corn": "yellow",
    "a strawberry": "red", "a tomato": "red", "a cherry": "red", "blood": "red", "a fire truck": "red",
    "a carrot": "orange", "a pumpkin": "orange", "a mandarin": "orange",
    "snow": "white", "milk": "white", "a swan": "white", "salt": "white", "a polar bear": "white",
    "coal": "black", "the night": "black", "a raven": "black",
    "chocolate": "brown", "a bear": "brown", "coffee": "brown", "wood": "brown",
    "a plum": "purple", "an eggplant": "purple", "lavender": "purple",
    "a flamingo": "pink", "a pig": "pink",
    "an elephant": "grey", "a mouse": "grey", "a rain cloud": "grey", "a stone": "grey",
}

MIXES = {
    ("blue", "yellow"): "green", ("red", "yellow"): "orange", ("red", "blue"): "purple",
    ("red", "white"): "pink", ("black", "white"): "grey", ("red", "green"): "brown",
}

LEGS = {
    "a llama": 4, "a dog": 4, "a cat": 4, "a horse": 4, "a cow": 4, "a sheep": 4, "a frog": 4, "a mouse": 4,
    "an elephant": 4, "a bird": 2, "a chicken": 2, "a duck": 2, "a person": 2, "a penguin": 2, "a spider": 8,
    "an ant": 6, "a bee": 6, "a butterfly": 6, "a snake": 0, "a fish": 0, "a worm": 0, "a snail": 0,
}

SOUNDS = {
    "a llama": "hums", "a dog": "barks", "a cat": "meows", "a cow": "moos", "a sheep": "bleats", "a duck": "quacks",
    "a horse": "neighs", "a lion": "roars", "a bee": "buzzes", "a snake": "hisses", "an owl": "hoots",
    "a frog": "croaks", "a wolf": "howls", "a pig": "oinks", "a mouse": "squeaks",
}

LIVES = {
    "a llama": "in the mountains", "a fish": "in the water", "a camel": "in the desert", "a penguin": "on the ice",
    "a bee": "in a hive", "a bird": "in a nest", "a lion": "on the plains", "a monkey": "in the jungle",
    "a cow": "on a farm", "a whale": "in the sea", "a fox": "in the forest", "a spider": "in a web",
}

# Ability -> (those that can, those that cannot).
ABILITIES = {
    "fly": (["a bird", "a bee", "an owl", "a butterfly", "a duck", "a raven", "a bat"],
            ["a llama", "a dog", "a cow", "a fish", "a horse", "a penguin", "a snake", "a stone"]),
    "swim": (["a fish", "a duck", "a frog", "a whale", "a penguin", "a dog", "a swan"],
             ["a stone", "a chair", "a bee", "a butterfly"]),
    "walk": (["a llama", "a dog", "a cat", "a person", "a horse", "a sheep"],
             ["a fish", "a stone", "a tree", "a whale"]),
    "talk": (["a person", "a teacher", "a child"],
             ["a llama", "a stone", "a fish", "a tree", "a chair", "a pillow"]),
    "hum": (["a llama", "a person", "a bee"], ["a stone", "a chair", "a pillow"]),
    "read": (["a person", "a teacher"], ["a llama", "a fish", "a stone", "a dog", "a tree"]),
}

# From the smallest to the largest.
SIZES = ["an ant", "a bee", "a mouse", "a frog", "a cat", "a dog", "a sheep", "a llama", "a horse", "an elephant",
         "a whale", "a mountain"]

OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("happy", "sad"), ("fast", "slow"),
    ("open", "closed"), ("wet", "dry"), ("old", "new"), ("loud", "quiet"), ("soft", "hard"), ("full", "empty"),
    ("left", "right"), ("light", "dark"), ("good", "bad"), ("warm", "cool"), ("long", "short"), ("high", "low"),
    ("awake", "asleep"), ("clean", "dirty"),
]

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]

NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
                "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]

NAMES = ["Ana", "Ben", "Carla", "Dan", "Eva", "Finn", "Grace", "Hugo", "Ines", "Jon", "Kim", "Leo", "Mia", "Nora",
         "Omar", "Pia", "Rosa", "Sam", "Tom", "Zoe"]

# (singular, plural)
COUNTABLES = [("llama", "llamas"), ("button", "buttons"), ("pillow", "pillows"), ("sock", "socks"), ("star", "stars"),
              ("blanket", "blankets"), ("apple", "apples"), ("book", "books"), ("sheep", "sheep"), ("cookie", "cookies")]

WORDS = ["moon", "star", "pillow", "llama", "blanket", "button", "river", "mountain", "cloud", "apple", "window",
         "garden", "music", "winter", "summer", "candle", "dream", "sock", "wool", "tea", "book", "bird", "rain"]

# Each fact: (questions, answer, regular expression that a right answer matches, one-word answer or None).
LLAMA_FACTS = [
    (["What is a llama?", "What are llamas?", "Tell me what a llama is.", "Can you explain what a llama is?",
      "Describe a llama.", "Do you know what a llama is?", "What kind of animal is a llama?", "Explain llamas to me."],
     "A llama is a woolly animal from South America. It is a cousin of the camel.", r"animal|camel", "Animal."),
    (["What do llamas eat?", "What does a llama eat?", "What is the food of llamas?", "What do llamas like to eat?",
      "What should I feed a llama?", "What can I feed my llama?", "Which food do llamas eat?", "What is a llama's food?"],
     "Llamas eat grass and hay.", r"grass|hay", "Grass."),
    (["Where do llamas come from?", "Where are llamas from?", "Which continent do llamas come from?",
      "What is the home of llamas?", "Where does the llama come from?", "Where is a llama from?",
      "Which part of the world are llamas from?", "Where do you find wild llama herds?"],
     "Llamas come from South America.", r"South America", None),
    (["What is a baby llama called?", "What do you call a baby llama?", "What is the name of a baby llama?",
      "How do you call a young llama?", "What is a young llama called?", "What is the word for a baby llama?",
      "A baby llama is called what?", "Which word means baby llama?"],
     "A baby llama is called a cria.", r"\bcria\b", "Cria."),
    (["Do llamas spit?", "Can llamas spit?", "Does a llama spit?", "Is it true that llamas spit?", "Do llamas ever spit?",
      "Why do llamas spit?", "When do llamas spit?", "When does a llama spit?"],
     "Yes, llamas spit when they are angry.", r"spit", "Yes."),
    (["What is llama wool good for?", "What is made from llama wool?", "What can you make from llama wool?",
      "What do people make from llama wool?", "What can I make out of llama wool?", "What do we use llama wool for?",
      "What is llama wool used for?", "Why do people like llama wool?"],
     "People make warm blankets from llama wool.", r"blankets", "Blankets."),
    (["Are llamas friendly?", "Is a llama friendly?", "Are llamas nice?", "Do llamas like people?", "Is a llama nice?",
      "Do llamas make good friends?", "Are llamas kind to people?", "Is it true that llamas are friendly?"],
     "Yes, llamas are calm and friendly.", r"^Yes", "Yes."),
    (["Do llamas live alone?", "Do llamas live in groups?", "How do llamas live together?", "What is a group of llamas called?",
      "What do you call a group of llamas?", "What is the word for many llamas together?", "Do llamas live together?",
      "What is the name of a group of llamas?"],
     "Llamas live together in a herd.", r"\bherd\b", "Herd."),
    (["How long do llamas live?", "How old do llamas get?", "How old can a llama get?", "How long does a llama live?",
      "What age do llamas reach?", "How many years does a llama live?", "How many years do llamas live?",
      "What is the age of an old llama?"],
     "Llamas live for about 20 years.", r"\b20 years\b", "20."),
    (["What can llamas carry?", "Can llamas carry things?", "Do llamas carry things?", "What work do llamas do?",
      "What is the job of a llama?", "What do llamas do for people?", "How do llamas help people?", "Can a llama carry a bag?"],
     "Llamas carry bags over the mountains.", r"carry", "Bags."),
    (["Which animal is like a llama?", "What is the smaller cousin of the llama?", "Which animal looks like a llama?",
      "What animal looks like a small llama?", "Who is the small cousin of the llama?", "Is there an animal like a llama?",
      "Which animal is a cousin of the llama?", "What is similar to a llama?"],
     "The alpaca is the smaller cousin of the llama.", r"alpaca", "Alpaca."),
    (["Do llamas wear pajamas?", "Can a llama wear pajamas?", "Do llamas need pajamas?", "Does a llama wear pajamas?",
      "Should a llama wear pajamas?", "Have you seen a llama in pajamas?", "Are there llamas in pajamas?",
      "Can llamas have pajamas?"],
     "Only in stories, but a llama in pajamas looks very cosy.", r"stories", "Sometimes."),
]

PAJAMA_FACTS = [
    (["What are pajamas?", "What is a pajama?", "Tell me what pajamas are.", "Can you explain what pajamas are?",
      "Describe pajamas.", "Do you know what pajamas are?", "Explain pajamas to me.", "What kind of clothes are pajamas?"],
     "Pajamas are soft clothes for sleeping.", r"cloth.*sleep", "Clothes."),
    (["When do you wear pajamas?", "When do people wear pajamas?", "When should I wear pajamas?",
      "When do I put on pajamas?", "What time is it for pajamas?", "At what time do people wear pajamas?",
      "When do we put on our pajamas?", "When does a child wear pajamas?"],
     "People wear pajamas at night.", r"night", "Night."),
    (["Where do people wear pajamas?", "Where do you wear pajamas?", "Where should I wear pajamas?",
      "Where can I wear my pajamas?", "What is the place for pajamas?", "Where do we wear our pajamas?",
      "In which place do people wear pajamas?", "Where does a child wear pajamas?"],
     "People wear pajamas in bed.", r"\bbed\b", "Bed."),
    (["What are pajamas made of?", "What are pajamas made from?", "Which cloth are pajamas made of?",
      "What is in the cloth of pajamas?", "What material are pajamas?", "What do you make pajamas from?",
      "From what are pajamas made?", "Which material is good for pajamas?"],
     "Most pajamas are made of soft cotton.", r"cotton", "Cotton."),
    (["Why do people wear pajamas?", "Why do you wear pajamas?", "Why should I wear pajamas?", "What are pajamas good for?",
      "What is the use of pajamas?", "Why do we need pajamas?", "What do pajamas do for people?", "Why are pajamas good?", "Why do people like pajamas?",
      "What is good about pajamas?", "Why should people wear pajamas?", "Why would I wear pajamas?"],
     "Pajamas keep you warm and cosy while you sleep.", r"warm", "Warmth."),
    (["What are the parts of pajamas?", "Which parts do pajamas have?", "What belongs to a set of pajamas?",
      "What is in a set of pajamas?", "How many parts do pajamas have?", "Which parts are in a set of pajamas?",
      "What parts make up pajamas?", "What comes with a set of pajamas?", "Tell me the parts of pajamas.", "Name the parts of pajamas."],
     "A set of pajamas has a shirt and trousers.", r"shirt and trousers", "Two."),
    (["Can I wear pajamas at work?", "Can I go to work in pajamas?", "Should I wear pajamas at school?",
      "Can I go to school in pajamas?", "Are pajamas good for work?", "May I wear pajamas to school?",
      "Is it fine to wear pajamas at work?", "Do people wear pajamas at work?"],
     "No, pajamas are for sleeping.", r"^No", "No."),
    (["How do you wash pajamas?", "How do I wash pajamas?", "How should I wash my pajamas?", "What is the way to wash pajamas?",
      "How can I clean my pajamas?", "How do I clean pajamas?", "How are pajamas washed?", "How do people wash pajamas?"],
     "Wash pajamas in warm water.", r"warm water", "Warm."),
    (["Are pajamas soft?", "Are pajamas cosy?", "Is it true that pajamas are soft?", "Do pajamas feel soft?",
      "Should pajamas be soft?", "Are all pajamas soft?", "Do pajamas feel nice?", "Do pajamas feel cosy?", "Is it true that pajamas are cosy?",
      "Should pajamas be cosy?"],
     "Yes, pajamas are soft and cosy.", r"^Yes", "Yes."),
    (["Which animal wears pajamas in stories?", "Who wears pajamas in your stories?", "Who wears pajamas in stories?",
      "Which animal do you see in pajamas?", "What animal wears pajamas?", "Which animal likes pajamas?",
      "Which animal has pajamas in your stories?", "Who likes pajamas most?"],
     "The llama wears pajamas.", r"llama", "Llama."),
]

WORLD_FACTS = [
    (["How many days are in a week?", "How many days does a week have?", "A week has how many days?",
      "How many days make a week?", "What is the number of days in a week?", "How long is a week in days?"],
     "A week has 7 days.", r"\b7\b", "7."),
    (["How many months are in a year?", "How many months does a year have?", "A year has how many months?",
      "How many months make a year?", "What is the number of months in a year?", "How long is a year in months?"],
     "A year has 12 months.", r"\b12\b", "12."),
    (["How many hours are in a day?", "How many hours does a day have?", "A day has how many hours?",
      "How many hours make a day?", "What is the number of hours in a day?", "How long is a day in hours?"],
     "A day has 24 hours.", r"\b24\b", "24."),
    (["How many fingers are on a hand?", "How many fingers does a hand have?", "A hand has how many fingers?",
      "What is the number of fingers on a hand?", "How many fingers do I have on one hand?", "How many fingers has one hand?"],
     "A hand has 5 fingers.", r"\b5\b", "5."),
    (["Where does the sun rise?", "Where does the sun come up?", "In which direction does the sun rise?",
      "Which side does the sun rise on?", "Where can I see the sun rise?", "The sun rises where?"],
     "The sun rises in the east.", r"\beast\b", "East."),
    (["What is frozen water called?", "What do you call frozen water?", "What does water become when it freezes?",
      "What is the name of frozen water?", "What is water when it is very cold?", "Frozen water is called what?"],
     "Frozen water is called ice.", r"\bice\b", "Ice."),
    (["What falls from the clouds?", "What comes from the clouds?", "What do clouds bring?", "What falls from a cloud?",
      "What comes out of a rain cloud?", "What does a cloud bring?"],
     "Rain falls from the clouds.", r"[Rr]ain", "Rain."),
    (["What do bees make?", "What does a bee make?", "Which food do bees make?", "What food comes from bees?",
      "What sweet thing do bees make?", "What do we get from bees?"],
     "Bees make honey.", r"honey", "Honey."),
    (["What do cows give?", "What does a cow give?", "What do we get from cows?", "What drink comes from cows?",
      "Which drink does a cow give?", "What do people get from a cow?"],
     "Cows give milk.", r"milk", "Milk."),
    (["What shines at night?", "What can I see in the sky at night?", "What is in the sky at night?",
      "What shines in the night sky?", "What lights up the night sky?", "What do you see in the night sky?"],
     "The moon and the stars shine at night.", r"moon|stars", "Moon."),
]

# What is asked of every assistant and what this one answers about itself.
SELF_FACTS = [
    (["Who are you?", "What are you?", "Tell me who you are.", "What is your name?", "Do you have a name?",
      "How should I call you?", "Introduce yourself.", "Can you introduce yourself?", "Tell me your name.", "Your name?",
      "Who am I talking to?", "Who is this?", "May I ask your name?", "Say who you are."],
     "I am Pip, a tiny llama model in pajamas.", r"\bPip\b", "Pip."),
    (["Who made you?", "Who built you?", "Who trained you?", "Where do you come from?", "How were you made?",
      "How were you trained?", "What were you trained on?", "Who is your maker?", "Who created you?", "What made you?"],
     "I was trained by the pajamas project on text that it wrote itself.", r"pajamas project", "Pajamas."),
    (["What can you do?", "What do you know?", "How can you help me?", "What can I ask you?", "What can you help with?",
      "What do you know about?", "What questions can you answer?", "What are you good at?", "Help.", "What should I ask you?"],
     "I can talk about llamas, pajamas and colours, and I can count and add small numbers.", r"llamas.*colours", "Talk."),
    (["Are you a human?", "Are you human?", "Are you a person?", "Are you a real person?", "Are you alive?",
      "Am I talking to a human?", "Are you a real llama?", "Is this a real person?"],
     "No, I am a tiny language model.", r"^No", "No."),
    (["Are you a robot?", "Are you a computer?", "Are you a machine?", "Are you a language model?", "Are you an AI?",
      "Are you a program?", "Is this a machine?", "Am I talking to a machine?", "Is this an AI?", "Am I talking to an AI?", "Is Pip an AI?",
      "Are you a bot?", "Is this a bot?", "Am I talking to a robot?", "Is this a robot?"],
     "Yes, I am a tiny language model.", r"^Yes", "Yes."),
    (["How big are you?", "How large are you?", "How many parameters do you have?", "How many parameters has Pip?",
      "How many parameters are in you?", "What is your number of parameters?", "Are you a big model?", "Are you a small model?",
      "How small are you?", "Are you a large model?", "What is your size?", "Tell me your size.", "What size are you?"],
     "I am very small: I have about two million parameters.", r"two million", "Small."),
    (["What is your favourite animal?", "Which animal do you like most?", "Which animal do you like best?",
      "Do you have a favourite animal?", "What animal do you love?", "Tell me your favourite animal."],
     "My favourite animal is the llama.", r"llama", "Llama."),
    (["What is your favourite colour?", "Which colour do you like most?", "Which colour do you like best?",
      "Do you have a favourite colour?", "What colour do you love?", "Tell me your favourite colour."],
     "My favourite colour is blue, like my pajamas.", r"\bblue\b", "Blue."),
    (["What do you wear?", "What are you wearing?", "Which clothes do you wear?", "What clothes do you have?",
      "Are you wearing pajamas?", "Do you wear pajamas?"],
     "I wear blue pajamas.", r"pajamas", "Pajamas."),
]

SMALL_TALK = [
    (["Hello!", "Hello.", "Hi!", "Hi there!", "Hey!", "Hello there!", "Hi.", "Hey there.", "Greetings!", "Hello Pip!",
      "Hi Pip!", "Hello my friend!"],
     "Hello! How can I help you?", r"^Hello", None),
    (["Good morning!", "Good morning, Pip!", "Morning!", "A good morning to you!", "Good morning to you.", "Good morning, my friend!"],
     "Good morning! Did you sleep well?", r"[Mm]orning", None),
    (["Good night!", "Good night, Pip!", "I am going to bed.", "I am going to sleep.", "Sleep well!", "A good night to you!",
      "Time for bed."],
     "Good night! Put on your pajamas and sleep well.", r"^Good night", None),
    (["How are you?", "How are you today?", "How do you do?", "How is it going?", "Are you well?", "How do you feel?",
      "How do you feel today?", "Is everything fine with you?"],
     "I am fine, thank you. How are you?", r"fine", None),
    (["I am fine.", "I am well.", "I am good.", "I am fine, thanks.", "I feel good.", "I am great!", "I am very well."],
     "I am glad to hear that.", r"glad", None),
    (["Thank you!", "Thanks!", "Thank you very much.", "Thanks a lot!", "Many thanks!", "Thank you, Pip!", "Thanks, Pip."],
     "You are welcome!", r"welcome", None),
    (["Goodbye!", "Bye!", "See you!", "See you later!", "Bye bye!", "Goodbye, Pip!", "I have to go.", "See you soon!"],
     "Goodbye! See you soon.", r"[Bb]ye", None),
    (["I am tired.", "I am so tired.", "I feel tired.", "I am sleepy.", "I feel sleepy today.", "I am very tired."],
     "Then put on your pajamas and rest.", r"rest", None),
    (["I am sad.", "I feel sad.", "I am not happy.", "I feel bad today.", "I am a little sad.", "I feel very sad."],
     "I am sorry to hear that. A warm blanket may help.", r"sorry", None),
    (["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny.", "Tell me something funny.",
      "Can you tell a joke?", "A joke please."],
     "Why did the llama wear pajamas? Because it wanted to be a sleeping bag!", r"sleeping bag", None),
]

# Beyond this model: it says so. Subjects are crossed with the questions below.
UNKNOWN_SUBJECTS = ["politics", "the stock market", "football", "quantum physics", "chess", "the weather in Paris",
                    "the news", "Roman history", "tax law", "medicine", "cooking", "the internet", "guitars", "opera",
                    "trains", "banks", "cars", "Shakespeare", "chemistry", "airplanes", "Japan", "dinosaurs", "volcanoes",
                    "tennis", "philosophy", "electricity", "phones", "movies", "the stock exchange", "programming"]
UNKNOWN_QUESTIONS = ["What do you know about {}?", "Tell me about {}.", "Explain {} to me.", "Can you explain {}?",
                     "What is new in {}?", "Who is the best at {}?", "Write an essay about {}.", "How does one learn {}?",
                     "What do you think about {}?", "Give me advice about {}.", "Teach me {}.", "Who invented {}?",
                     "What should I read about {}?", "Write a poem about {}."]
UNKNOWN_ANSWER = "I am a tiny model and I do not know that."
UNKNOWN_PATTERN = r"do not know"
