"""Words by which sentences are told apart: abbreviations, and what begins a sentence.

One list for all languages, since a text's language isn't known. What is an abbreviation in one and
a word in another costs a border, and no sentence is cut.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal
from unicodedata import normalize

# No sentence ends in these: titles, and what introduces an example or a reference.
_LEADING = """
dr dra drs mr mrs ms messrs prof mme mmes mlle mgr msgr sr sra sres sras srta sig sigg sgr dott
dhr mevr hr frl hl St Ste Sta Sto ss sv św sgt Lt cpl Capt cmdr Maj Adm Gen Gov Sen Hon Rev vs v
viz cf cfr vgl vrt bkz zob por ks ld žr gl npr np napr např piem nt esim örn d.h z.b i.e e.g
d.w.z t.ex f.eks p.ex p.ej bl.a m.a.w tj tzn tzv tzw ing ir inż mudr judr phdr ths ts pgs г-н
г-жа гр проф акад им напр т.е т.к см ср див виж пор π.χ βλ κ डॉ प्रो श्री श्रीमती पं ড ডা মো
திரு திருமதி պրոֆ դոկտ
"""

# Others. A sentence may end in them, which shows where a word of `_STARTERS` follows.
_OTHER = """
abb abs absch abschn abt adv aff afl al anm ann apdo approx apr aprox arch arh art arts assn
asst atty aug ausg av avd ave avv bd bde bibl bldg blvd blz br brig bros buchst bzgl bzw böl
bölüm bşk ca cad cal cap cca cel ch chap chr cie cit cl cm co col com comp conf corp cr cs ct cz
dec dep dept dez diag dic dipl dir dist div dl dll dna doc dsb ed eds ee eg eidg einschl ej ekr
el ene eng env enz eq eqs esp esq est et etc etw ev evang eventl evtl ex exa excmo exp ext feb
febr ff fig figs fl fn fr ft gbr geb gegr gem geogr ges gesch gest ggf gr gral gs hbf hlm hod
hrsg ib ibid idem ie illus inc incl inf inh inkl inst int introd inž itd itp izd jan jg jh jhd
jl jr jun juv kap kat kath kb kbl kg kgl kl km kor kpt kr lat lda lic lim lit ll ltd ltda m.ö
mag mah mar md mežd mil milj min mio mld mln mm mrd mss mst mt mts mwst n.chr nakl naut nem nl
nn nom nos nov nr ns num nuv núm o.a o.ä obj obr oct off okr okt op orig os osv oz pag pags pav
pct pers pg ph phil pkt pl plc pol pos poz pp ppm pr pref pres proc psicol psl pt pto pts pág
págs párr qtd r rd rec ref reg rel rep resp rozdz ry ryc rys s.a s.l sc sch sec secc sect sel
sep sept sez sg skt sog sogen sok stor str suppl supt sz szt sáb tab tav tel tels terv tfno tlf
tp tr trans tsd tsp tur tys u.a u.s ud uds ul un univ unt usf ust usw utg uu vd vds verf verl
vers vic vid vlt vol vols wg woj wyd y.o z.t zak zal zb zgl ziff zit zl zt ztg zvl zw çev öst
östl č čl şek št αι αρ δηλ εικ εκ κ.ά κ.λπ κεφ κλπ λ.χ μ.χ π.Χ σελ στρ τ.μ τηλ φ χιλ адм англ
без бул вв вкл вул гг гл гос греч грн губ д.н.э д.р до др ед жен журн зав зам ин ин-т инж ист
итал каб кв км коп корп куб лат лит лк м-р мес мин млн млрд муж н.э наз нас нач нем обл ок ориг
отд п пер пл полк пос пп пр пр-т прим просп псевд разд ред рис род рос руб св сек сел соавт соч
спб ст стор стр т.д т.п табл тел тов тт тыс укр ул ун устар фиг фр франц худ ч чл шт экз юр яз
ін թ հ հազ մլն տես आई आर ई ए एच एन एफ एम एल एस ओ के क्यू जी जे टी डी पी बी यू रु वाई वी सी ক ரூ
రూ ഡോ പ്രൊ മി
"""

# What a number after them counts.
_LABELS = """
fig figs eq eqs sec sect art arts abb kap abs bd nr n no nos vol vols p pp pg pag pàg pág págs s
str ch chap cap tab tav table anm ziff § núm num blz obr rys rozdz tabl č čl br sl şek bölüm
kuva рис табл стр гл ст разд п п.п фиг мал εικ σελ αρ κεφ
"""

_STARTERS = """
the an this that these those it he she they we you there here in on at for from with when while
after before as if but and or so however then thus what why how where which who whose although
because since by during not its his her their our my your each every all some many most both
another such also later today now once until under over is are was were do does did can could
would should must have has had don't doesn't didn't it's he's she's they're that's there's der
die das dem den ein eine einen einem er sie es wir ich ihr ihre sein seine dies diese dieser
dieses dann danach dort hier heute im am auf aus bei mit nach von vor zum zur für und aber oder
doch jedoch auch als wenn weil wer wie wo warum seit während nur noch nicht beim kein keine le
la les un une des il elle ils elles nous vous je ce cet cette ces celui celle cela ça mais et ou
donc puis ensuite dans en au aux pour par sur avec sans sous après avant depuis quand lorsque
comme si que qui où pourquoi son sa ses leur leurs l' c' d' c'est n' j' qu' el los las una él
ella ellos este esta esto estos estas ese eso aquel su sus lo se con por para pero cuando donde
después antes desde también además sin hay era fue quién qué cómo dónde gli questo questa egli
lui lei essi nel nella al alla per ma dopo prima perché anche chi cosa come os um uma ele ela
eles isto esse isso em de da com mas depois também não quem quando het een hij zij ze dit dat
deze op aan met van voor na maar toen daar daarna ook wat waarom hun zijn haar det detta dette
denne disse han hon med för efter etter men og och når när hvis om där vem vad hvem hva hvad
hvor var hvorfor ingen hän tämä nämä ne kun mutta myös jos kuka mikä missä ona ono oni to ten ta
te po od dla przy ale gdy kiedy jeśli potem jego jej był była kto co gdzie ve pro při když pokud
potom jeho její byl byla kdo kde tento tato az ez ők ha amikor ki mi hol bu şu ama fakat bir
onun kim nerede neden ea ei acest această pe cu din dar dacă cine unde ko što gdje gde kaj kje
zašto nitko niko kes kas kur mis ini itu dia mereka di ke dari pada dan tetapi namun siapa apa
ai nó họ он она оно они это этот эта эти в во на с со к по из от для при за но а и или если
когда потом его её их там тогда был была было мы вы я как что так также однако кто где почему
він вона воно вони це цей ця ці у з до але якщо коли потім його хто що де чому той тя то те това
този ако кой къде о ο η το οι τα αυτός αυτή αυτό στο στη στην στον με από για και αλλά όμως
ποιος που τι γιατί δεν
"""

# After an initial ("J. De Vries") these are part of a name.
_PARTICLES = """
de del della den der des di da das do dos du el al la las le les lo los van von ter ten ben bin
af av zum zur im am ai ne ki mi ko to na ze te ta pe cu ce in on an as so he un se we
"""

# What takes up something before: pronouns, and words that go on with a thought.
_POINTING = """
it its he she his her they them their theirs this that these those such hence therefore however
but and or so yet nor thus then instead otherwise also moreover furthermore besides still
meanwhile both neither afterwards later similarly likewise consequently nevertheless nonetheless
additionally er sie es ihr ihre ihren sein seine seinen dies diese dieser dieses diesem diesen
jener jene dabei dadurch daher deshalb deswegen darum dann danach dafür damit darin dort jedoch
aber doch außerdem zudem solche solcher ebenso trotzdem il elle ils elles ce cet cette ces cela
ça c'est celui celle ceux celles son sa ses leur leurs mais cependant toutefois pourtant donc
ainsi alors puis ensuite aussi él ella ello ellos ellas este esta esto estos estas ese esa eso
esos esas aquel aquella su sus pero además también entonces luego así era fue se egli esso essa
essi lui lei loro questo questa questi queste quello quella ciò suo sua suoi ma però tuttavia
quindi inoltre poi così è fu ele ela eles elas isto isso esse esses essas aquele aquela seu seus
suas mas porém contudo portanto assim também então foi hij zij ze dit dat deze zijn haar hun
maar echter daarom daarna ook toch bovendien han hon det denna detta dessa denne dette disse
hennes deres derfor därför dessutom dock hän tämä nämä sen hänen niiden mutta kuitenkin siksi
myös ona ono oni jego jej ich jednak dlatego potem też także tento tato toto tito jeho její
jejich avšak však proto také potom ő ők azonban ezért bu şu onlar bunlar onun ama fakat ancak
acesta aceasta acest această însă ini itu dia mereka tetapi namun nó họ он она оно они это этот
эта эти его её ее их тогда но однако поэтому потом также такой такая такие він вона воно вони це
цей ця ці його її їх але однак той тя то те това този тази тези обаче αυτός αυτή αυτό αυτοί
αυτές αυτά όμως αλλά τότε هو هي هم هذا هذه ذلك تلك لكن ولكن او آن این آنها اما यह वह ये वे इस
इसका उसका लेकिन הוא היא הם זה זאת אלה אבל
그는 그녀는 그것은 이것은 이는 그의 그러나 하지만 또한 그래서
"""

# What stands for something before it, as the second or third word.
_OBJECTS = """
it them him this these those dies diese dieser dieses diesem diesen ihn ihm cela ça esto eso
ello isso isto ciò это этого этому этом этих него неё них
"""

_POINTING_UNSPACED = tuple(
    [*"它他她这這那此其但而", "因此", "所以", "不过", "然而", "これ", "それ", "あれ"]
    + ["この", "その", "あの", "彼", "しかし", "だが", "また", "そして", "だから"]
)

# The texts in which "3. Mai" is an ordinal, and those in which a number may end a sentence.
_ORDINAL_WORDS = """
der die das und ist nicht ein eine wurde im mit auf für den dem og det er til af av ikke som ble
blev oli ovat sen että joka ja w jest się był była przez oraz je byl byla bylo jako který ktorý
az egy és hogy bir ve için ile olarak ir kas tas see ning mille su bio bila koji ki bil је су
био
"""
_CARDINAL_WORDS = """
the of and was were that with by has this is it they le les des est une dans pour du au il elle
et el los las del una que con por no su lo era gli della nel che per è os uma não em às ao dos
het een van zijn op niet dat och att ett är på inte în și este din pe fost la cu l' d' els amb
yang dan di pada untuk là và của ở những в не на что он она это был была и і та що у й που και
το του της στο
"""

_MONTHS = re.compile(
    "jan|jän|feb|fév|mär|mar|apr|avr|mai|maj|máj|mei|may|maí|jun|jún|jul|júl|aug|sep|szep|okt|oct|nov|"
    "dez|dec|des|led|únor|břez|dub|květ|červ|srp|září|říj|list|pros|sty|lut|kwi|czerw|lip|sierp|wrz|"
    "paź|gru|tammi|helmi|maalis|huhti|touko|kesä|heinä|elok|syys|loka|marras|joulu|oca|şub|nis|haz|"
    "tem|ağu|eyl|eki|kas|ara|jaan|veebr|märts|juun|juul|gada|svib|ožu|trav|lipn|kolov|ruj|stud|siječ"
)

UNITS = frozenset("h m g l s km kg cm mm ha kb mb gb mph min".split())
_DOTTED = re.compile(r"(?:[^\W\d_]{1,4}\.(?:-?))+[^\W\d_]{1,4}")
# One letter (a syllable of Korean is a word), in most scripts of India with its vowel sign.
_LETTER = re.compile(r"[^\W\d_\u1100-\uffff]|(?=[\u0980-\u0dff])\w[^\w\s.]*")
_VOWEL = re.compile("[aeiouyæøœıəαεηιουωаеиоуыэюяіїє]")
_WORDS = re.compile(r"[^\W\d_]+['’]?")
_EDGES = re.compile(r"^[^\w]+|[^\w\u0900-\u0dff]+$")
_SHORT = 4  # letters of an abbreviation without a vowel ("bldg", "vlt")

_LABEL_WORDS = frozenset(_LABELS.split())
LEADING = frozenset(_LEADING.split())
STARTERS = frozenset(_STARTERS.split())
_POINTING_WORDS = frozenset(_POINTING.split())
_OBJECT_WORDS = frozenset(_OBJECTS.split())
PARTICLES = frozenset(_PARTICLES.split())
ORDINAL_WORDS = frozenset(_ORDINAL_WORDS.split()) - frozenset(_CARDINAL_WORDS.split())
CARDINAL_WORDS = frozenset(_CARDINAL_WORDS.split()) - frozenset(_ORDINAL_WORDS.split())
_KNOWN = frozenset(_OTHER.split())

Kind = Literal["leading", "initial", "abbreviation", "word"]


@lru_cache(maxsize=4096)
def kind_of(word: str) -> Kind:
    """Return what a word before a full stop is, by its letters alone."""
    lower = word.lower()
    if word in _KNOWN:
        return "abbreviation"
    if word in LEADING or lower in LEADING:
        return "leading"
    if _LETTER.fullmatch(word):
        return "initial"
    if lower in _KNOWN or lower.endswith("str"):  # Hauptstr. 5
        return "abbreviation"
    if _DOTTED.fullmatch(word):
        parts = re.split(r"\W+", word)
        return "abbreviation" if min(map(len, parts)) == 1 else "word"
    if 1 < len(word) <= _SHORT and word.isalpha() and not word.isupper() and has_case(word):
        letters = normalize("NFD", lower)
        return "word" if _VOWEL.search(letters) else "abbreviation"
    return "word"


def has_case(word: str) -> bool:
    """Return whether a word's script has capitals."""
    return word.lower() != word.upper() and not "\u10d0" <= word <= "\u10ff"  # Georgian writes none


def is_label(word: str) -> bool:
    """Return whether a number after an abbreviation numbers what it names ("Fig. 3")."""
    return word.lower() in _LABEL_WORDS


def is_month(word: str) -> bool:
    """Return whether a word may be a month's name, in languages that write "3. Mai"."""
    return _MONTHS.match(word.lower()) is not None


@lru_cache(maxsize=16)
def writes_ordinals(text: str) -> bool | None:
    """Return whether a text's language writes "3rd" as "3."; None where its words don't tell."""
    words = [word.lower() for word in _WORDS.findall(text)]
    ordinal = sum(word in ORDINAL_WORDS for word in words)
    cardinal = sum(word in CARDINAL_WORDS for word in words)
    return None if ordinal == cardinal else ordinal > cardinal


def points_back(beginning: str) -> bool:
    """Return whether a sentence takes up what was said before it, by its first three words."""
    words = [word.lower().replace("’", "'") for word in beginning.split()[:3]]
    words = [_EDGES.sub("", word) for word in words]
    words = [word if word == "c'est" else word.partition("'")[0] for word in words if word]
    if not words or words[0].startswith(_POINTING_UNSPACED):
        return bool(words)
    second = words[0] in STARTERS and words[1:2] and words[1] in _POINTING_WORDS  # "After that"
    return words[0] in _POINTING_WORDS or bool(second) or not _OBJECT_WORDS.isdisjoint(words[1:])
