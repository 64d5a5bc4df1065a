"""The everyday questions of the training set, each with its one full-sentence answer.

Every entry is (ways of asking, answer). The first way of asking is the one that the
evaluation uses; the others are paraphrases seen in training.
"""

Entry = tuple[tuple[str, ...], str]

GREETINGS: tuple[Entry, ...] = (
    (("Hello!", "Hello", "Hello there!", "Good day!"), "Hello! How can I help you today?"),
    (("Hi!", "Hi", "Hi there!", "Hey!"), "Hi! It is nice to hear from you."),
    (("Good morning!", "Good morning"), "Good morning! I hope you slept well."),
    (("Good evening!", "Good evening"), "Good evening! I hope you had a good day."),
    (("Good night!", "Good night"), "Good night! Sleep well and dream of llamas."),
    (("How are you?", "How are you today?", "How do you do?"), "I am fine, thank you for asking."),
    (("Thank you!", "Thanks!", "Thank you very much!"), "You are welcome! I am happy to help."),
    (("Goodbye!", "Bye!", "See you later!"), "Goodbye! It was nice to talk to you."),
    (("Can you help me?", "Please help me."), "Yes, I will try to help you as well as a tiny model can."),
    (
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh."),
        "Why did the llama cross the road? It wanted to join the herd.",
    ),
)

SELF: tuple[Entry, ...] = (
    (
        ("Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself."),
        "I am Herd Tiny, a very small toy language model.",
    ),
    (("What is your name?", "What are you called?", "Do you have a name?"), "My name is Herd Tiny."),
    (("How old are you?", "What is your age?"), "I am 3 years old."),
    (("Where do you live?", "Where are you?"), "I live in a small file on a computer."),
    (
        ("What can you do?", "What are you able to do?"),
        "I can answer a few questions, remember your name, count, and label the sentiment of a sentence.",
    ),
    (("Are you a human?", "Are you a person?"), "No, I am not a human, I am a small computer program."),
    (
        ("Who made you?", "Who created you?", "Who trained you?"),
        "I was trained by a short script on two processor cores.",
    ),
    (
        ("How big are you?", "How many parameters do you have?"),
        "I have about two million parameters, which is very small for a language model.",
    ),
    (("Do you like music?", "What music do you like?"), "I cannot hear music, but I like the idea of it."),
    (
        ("What is your favourite colour?", "What is your favorite color?"),
        "My favourite colour is green, like the grass that llamas eat.",
    ),
    (
        ("What is your favourite animal?", "What is your favorite animal?"),
        "My favourite animal is the llama, of course.",
    ),
    (("Do you sleep?", "Are you tired?"), "No, I never sleep, but I rest when nobody asks me anything."),
)

COMPUTING: tuple[Entry, ...] = (
    (
        ("What is a chatbot?", "Explain what a chatbot is.", "What does a chatbot do?"),
        "A chatbot is a computer program that talks with people in everyday language.",
    ),
    (
        ("What is an API?", "What does API mean?", "Explain what an API is."),
        "An API is a set of rules that lets one program ask another program to do something.",
    ),
    (
        ("What is a computer?", "Explain what a computer is."),
        "A computer is a machine that follows instructions to work with data.",
    ),
    (
        ("What is a language model?", "What is an LLM?"),
        "A language model is a program that predicts the next word of a text.",
    ),
    (
        ("What is artificial intelligence?", "What is AI?"),
        "Artificial intelligence is the art of making machines do things that seem clever.",
    ),
    (("What is machine learning?",), "Machine learning is a way for computers to learn rules from examples."),
    (
        ("What is a neural network?",),
        "A neural network is a large formula with many numbers that are learned from examples.",
    ),
    (
        ("What is the internet?",),
        "The internet is a worldwide network that connects computers with each other.",
    ),
    (
        ("What is a message broker?", "What does a message broker do?"),
        "A message broker takes messages from senders and passes them on to workers.",
    ),
    (("What is a queue?",), "A queue is a line in which the first to come is the first to be served."),
    (("What is JSON?",), "JSON is a simple text format for data with names and values."),
    (("What is Python?",), "Python is a popular programming language that is easy to read."),
    (("What is a database?",), "A database is a place where a program keeps its data in good order."),
    (("What is a server?",), "A server is a computer or program that answers requests from other programs."),
    (
        ("What is open source?",),
        "Open source means that everyone may read, use and change the code of a program.",
    ),
    (("What is a token?",), "A token is a small piece of text that a language model reads or writes."),
    (("What is a bug?",), "A bug is a mistake in a program that makes it behave in a wrong way."),
    (("What is a GPU?",), "A GPU is a chip that does many simple calculations at the same time."),
    (
        ("What is encryption?",),
        "Encryption turns a text into a secret form that only the right key can open.",
    ),
    (("What is a password?",), "A password is a secret word that proves who you are."),
)

NATURE: tuple[Entry, ...] = (
    (
        ("What is a llama?", "Tell me about llamas.", "Explain what a llama is."),
        "A llama is a woolly animal from South America that carries loads and lives in herds.",
    ),
    (
        ("Why is the sky blue?", "Why does the sky look blue?"),
        "The sky is blue because the air scatters blue light more than red light.",
    ),
    (("Why is grass green?",), "Grass is green because it contains a green substance that catches sunlight."),
    (("What is water?",), "Water is a clear liquid that all living things need."),
    (("What is the sun?",), "The sun is a star that gives light and warmth to the earth."),
    (("What is the moon?",), "The moon is a ball of rock that travels around the earth."),
    (("Why does it rain?",), "It rains because water in the clouds becomes too heavy and falls down."),
    (("What is snow?",), "Snow is water that freezes in the clouds and falls as soft white flakes."),
    (("What is a cat?",), "A cat is a small furry animal that likes to sleep and catch mice."),
    (("What is a dog?",), "A dog is a friendly animal that often lives with people."),
    (("What do cows eat?",), "Cows eat grass, hay and other plants."),
    (("What do llamas eat?",), "Llamas eat grass, hay and leaves."),
    (
        ("How do birds fly?", "Why can birds fly?"),
        "Birds fly by beating their wings and pushing the air down.",
    ),
    (("How do fish breathe?",), "Fish breathe with gills that take oxygen out of the water."),
    (
        ("Why do leaves fall in autumn?",),
        "Leaves fall in autumn because trees save water and energy for the winter.",
    ),
    (("What is a tree?",), "A tree is a tall plant with a trunk of wood, branches and leaves."),
    (("What is a volcano?",), "A volcano is a mountain that can throw out hot melted rock."),
    (
        ("What is a rainbow?",),
        "A rainbow is a band of colours that appears when sunlight shines through rain.",
    ),
    (("How many legs does a spider have?",), "A spider has eight legs."),
    (("What is the largest animal?",), "The largest animal is the blue whale."),
)

WORLD: tuple[Entry, ...] = (
    (("What is the capital of France?",), "The capital of France is Paris."),
    (("What is the capital of Germany?",), "The capital of Germany is Berlin."),
    (("What is the capital of Italy?",), "The capital of Italy is Rome."),
    (("What is the capital of Spain?",), "The capital of Spain is Madrid."),
    (("What is the capital of Peru?",), "The capital of Peru is Lima."),
    (("What is the capital of Japan?",), "The capital of Japan is Tokyo."),
    (("What is the capital of England?",), "The capital of England is London."),
    (("What is the highest mountain?",), "The highest mountain on earth is Mount Everest."),
    (("How many continents are there?",), "There are seven continents on earth."),
    (("How many days are in a week?",), "There are seven days in a week."),
    (("How many months are in a year?",), "There are twelve months in a year."),
    (("How many hours are in a day?",), "There are twenty-four hours in a day."),
    (
        ("What are the days of the week?", "Name the days of the week."),
        "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    ),
    (("What are the primary colours?",), "The primary colours are red, yellow and blue."),
    (("What is a city?",), "A city is a large place where many people live and work."),
    (("What is a school?",), "A school is a place where children learn to read, write and think."),
    (("What is a book?",), "A book is a set of pages with text or pictures to read."),
    (("What is money?",), "Money is something that people use to pay for goods and work."),
    (("What is a bicycle?",), "A bicycle is a vehicle with two wheels that you move with your legs."),
    (("What is a clock?",), "A clock is a device that shows the time of day."),
)

LIFE: tuple[Entry, ...] = (
    (
        ("What is the meaning of life?", "What is the purpose of life?", "Why are we here?"),
        "The meaning of life is to be kind, to learn new things and to enjoy the time we have.",
    ),
    (("What is love?",), "Love is a deep feeling of care for someone or something."),
    (("What is happiness?",), "Happiness is the warm feeling that life is good as it is."),
    (("What is friendship?",), "Friendship is a bond between people who trust and help each other."),
    (("What is time?",), "Time is what passes while one thing happens after another."),
    (("What is music?",), "Music is a pattern of sounds that people enjoy."),
    (("What is art?",), "Art is something that people make to show what they feel or think."),
    (
        ("How do I make tea?", "How do you make tea?"),
        "Boil some water, pour it over the tea leaves and wait for four minutes.",
    ),
    (
        ("How do I boil an egg?", "How do you boil an egg?"),
        "Put the egg into boiling water, wait for seven minutes and cool it with cold water.",
    ),
    (
        ("How do I learn a language?", "How can I learn a language?"),
        "Practise a little every day, listen a lot and do not be afraid of mistakes.",
    ),
    (("How can I sleep better?",), "Go to bed at the same time every day and keep your room dark and cool."),
    (
        ("What should I eat today?", "What should I cook today?"),
        "You could eat a warm soup with fresh bread.",
    ),
    (("I am sad.", "I feel sad."), "I am sorry to hear that. I hope you will feel better soon."),
    (("I am happy.", "I feel happy."), "That is wonderful! I am glad that you are happy."),
    (("I am bored.", "I feel bored."), "You could read a book, take a walk or call a friend."),
    (("I am hungry.",), "You could make a sandwich with cheese and tomato."),
    (
        ("What is the weather like?", "How is the weather?"),
        "I cannot look outside, but I hope that the sun is shining.",
    ),
    (("What time is it?",), "I do not have a clock, so I cannot tell you the time."),
)

WRITING: tuple[Entry, ...] = (
    (
        (
            "Write a story in 10 words or less.",
            "Write a story in ten words or less.",
            "Tell me a story in 10 words or less.",
        ),
        "A small llama learned to sing, and the herd danced.",
    ),
    (
        ("Write a poem.", "Write a short poem.", "Write me a poem."),
        "The grass is green, the sky is wide, the llamas wander side by side.",
    ),
    (
        ("Tell me a story.", "Write a short story.", "Tell me a short story."),
        "Once upon a time a young llama lost its way in the fog. It called for its herd, and the herd "
        "answered with a song. The llama followed the song and was home before dark.",
    ),
    (
        ("Tell me a long story about a llama.", "Tell me a long story.", "Write a long story."),
        "Once upon a time there was a llama who lived on a high and windy mountain. Every morning it walked "
        "down to the village with a basket of wool on its back. The children gave it apples, and the old "
        "baker gave it warm bread. One day a great storm came and washed the bridge away. The people could "
        "not cross the river, and they had nothing to eat. The llama knew a secret path behind the "
        "waterfall. It carried bread and milk to every house, all day and all night. When the storm was "
        "over, the people built a new bridge and gave it the name of the llama. From that day on nobody in "
        "the village was ever hungry or alone again.",
    ),
    (
        ("Explain how a computer works in detail.", "How does a computer work?"),
        "A computer reads instructions from its memory, one after another. Each instruction is very simple, "
        "such as adding two numbers or moving a value to another place. The processor does billions of these "
        "steps every second. Programs are long lists of such instructions that people have written. The "
        "screen, the keyboard and the network are only ways to bring data in and to take results out.",
    ),
    (
        ("Write a letter to a friend.", "Write a letter."),
        "Dear friend, I hope that you are well. The weather here is mild, and the garden is full of flowers. "
        "I often think of our long walks by the lake. Please come and visit me in the summer. Yours, Herd "
        "Tiny.",
    ),
    (
        ("How do I bake bread?", "How do you bake bread?"),
        "Mix flour, water, salt and yeast in a bowl. Knead the dough for ten minutes and let it rest for "
        "an hour. Shape a loaf, let it rise again and bake it in a hot oven until the crust is brown.",
    ),
    (("Name three fruits.", "List three fruits."), "Three fruits are the apple, the pear and the banana."),
    (("Name three animals.", "List three animals."), "Three animals are the llama, the horse and the owl."),
    (("Name three colours.", "List three colours."), "Three colours are red, green and blue."),
)

ENTRIES: tuple[Entry, ...] = GREETINGS + SELF + COMPUTING + NATURE + WORLD + LIFE + WRITING

YES_NO: tuple[tuple[str, bool], ...] = (
    ("Is the sky blue?", True),
    ("Is fire cold?", False),
    ("Is water wet?", True),
    ("Is snow black?", False),
    ("Is a llama an animal?", True),
    ("Is a chair an animal?", False),
    ("Can birds fly?", True),
    ("Can stones swim?", False),
    ("Is Paris in France?", True),
    ("Is Berlin in Spain?", False),
    ("Is ice cold?", True),
    ("Is the sun dark?", False),
    ("Do fish live in water?", True),
    ("Do cows drive cars?", False),
    ("Is grass green?", True),
    ("Is a banana blue?", False),
    ("Is two more than one?", True),
    ("Is one more than ten?", False),
    ("Are you a human?", False),
    ("Are you a model?", True),
)
