/** Names for services that their user did not name: an adjective and someone who is remembered, as Docker does. */
import { assert } from "../base/error.ts";
import { pick, type Random, randomInteger } from "../base/random.ts";

const ADJECTIVES = `admiring adoring affectionate agitated amazing awesome beautiful blissful bold boring brave busy
charming clever compassionate competent condescending confident cool cranky crazy dazzling determined distracted dreamy
eager ecstatic elastic elated elegant eloquent epic exciting fervent festive flamboyant focused friendly frosty funny
gallant gifted goofy gracious great happy hardcore heuristic hopeful hungry infallible inspiring intelligent interesting
jolly jovial keen kind laughing loving lucid magical modest musing mystifying naughty nervous nice nifty nostalgic
objective optimistic peaceful pedantic pensive practical priceless quirky quizzical recursing relaxed reverent romantic
serene sharp silly sleepy stoic strange stupefied suspicious sweet tender thirsty trusting unruffled upbeat vibrant
vigilant vigorous wizardly wonderful xenodochial youthful zealous zen`.split(/\s+/);

const SURNAMES =
  `agnesi albattani allen archimedes ardinghelli aryabhata babbage banach bardeen bartik bassi bell bhabha
bhaskara blackburn blackwell bohr booth borg bose bouman boyd brahmagupta brattain brown burnell cannon carson
chandrasekhar chaplygin chatelet chebyshev clarke cohen colden cori cray curie darwin davinci dewdney dijkstra dirac
driscoll dubinsky easley edison einstein elbakyan elion ellis engelbart euclid euler faraday feistel fermat fermi feynman
franklin gagarin galileo galois ganguly gates gauss germain goldberg goldstine goldwasser golick goodall gould greider
grothendieck haibt hamilton haslett hawking heisenberg hellman hermann herschel hertz heyrovsky hodgkin hoover hopper
hugle hypatia ishizaka jackson jang jemison jennings jepsen johnson joliot jones kalam kapitsa kare keldysh keller kepler
khayyam khorana kilby kirch knuth kowalevski lalande lamarr lamport leakey leavitt lederberg lehmann lewin lichterman
liskov lovelace lumiere mahavira margulis matsumoto maxwell mayer mccarthy mcclintock mclaren mclean mcnulty meitner mendel
mendeleev meninsky merkle mestorf mirzakhani montalcini moore morse moser murdock napier nash neumann newton nightingale
nobel noether northcutt noyce panini pare pascal pasteur payne perlman pike poincare poitras proskuriakova ptolemy raman
ramanujan rhodes ride riemann ritchie robinson roentgen rosalind rubin saha sammet sanderson satoshi shamir shannon shaw
shirley shockley shtern sinoussi snyder solomon spence stonebraker sutherland swanson swartz swirles taussig tesla tharp
thompson torvalds tu turing varahamihira vaughan villani visvesvaraya volhard wescoff wilbur wiles williams williamson
wilson wing wozniak wright wu yalow yonath zhukovsky`.split(/\s+/);

/** A random name such as "elegant_turing"; `attempt` above 0 (the name was taken) puts a digit after it. */
export function randomServiceName(random: Random, attempt = 0): string {
  const adjective = pick(random, ADJECTIVES);
  const surname = pick(random, SURNAMES);
  assert(adjective !== undefined && surname !== undefined, "the lists of names are not empty");
  return `${adjective}_${surname}${attempt > 0 ? randomInteger(random, 10) : ""}`;
}

/** A task's full name: `web.1.<task id>`, or `web.<node id>.<task id>` for a global service's. */
export function taskName(
  serviceName: string,
  task: { readonly id: string; readonly slot: number; readonly nodeId: string },
): string {
  return `${slotName(serviceName, task)}.${task.id}`;
}

/** The name of a task's slot: `web.1`, or `web.<node id>`. */
export function slotName(serviceName: string, task: { readonly slot: number; readonly nodeId: string }): string {
  return `${serviceName}.${task.slot > 0 ? task.slot : task.nodeId}`;
}
