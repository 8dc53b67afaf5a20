/** Known bugs of the codec for values, each of which a suite must catch, on Deno. */

const STRUCTURES = "tests/api/structures_test.ts";
const OLDER = "tests/api/older_values_test.ts";

/** What to replace in which file, the suite that must notice, and a part of its test's name. */
export const VALUE_MUTANTS = [
  {
    name: "names are compared too shortly",
    file: "src/values/shapes.ts",
    from: "    for (let i = 0, place = at + 1; i < last; i += 1, place += 4) {\n" +
      "      if (view.getInt32(place, true) !== words[i]) return false;\n" +
      "    }\n" +
      "    return view.getInt32(at + this.entry.length - 4, true) === words[last];\n",
    to: "    return last > 0 && view.getInt32(at + 5, true) === words[1];\n",
    suite: STRUCTURES,
    filter: "any one character",
  },
  {
    name: "an object is read with a shape of this process that has other names",
    file: "src/values/plain_decoder.ts",
    from: "if (shape === undefined || at + shape.entry.length > to || " +
      "!shape.standsAt(view, at)) {",
    to: "if (shape === undefined || at + shape.entry.length > to) {",
    suite: STRUCTURES,
    filter: "any one character",
  },
  {
    name: "names that changed are names",
    file: "src/values/plain_decoder.ts",
    from: "  if (sumOf(bytes, at + SHAPE_HEAD, next) !== view.getInt32(at + 1, true)) {\n" +
      '    damaged("a shape that changed");\n' +
      "  }\n",
    to: "",
    suite: OLDER,
    filter: "a name that was changed",
  },
  {
    name: "a field that a getter deleted counts as undefined",
    file: "src/values/generate.ts",
    from: "      if (!hasOwn(record, ${key})) return -1;\n",
    to: "",
    suite: STRUCTURES,
    filter: "a getter deleted or added",
  },
  {
    name: "a property that no loop shows is not looked for",
    file: "src/values/own.ts",
    from: "    getOwnPropertyNames(object).length === count && " +
      "getOwnPropertySymbols(object).length === 0;\n\n/**",
    to: "    count >= 0 && getOwnPropertySymbols(object).length === 0;\n\n/**",
    suite: STRUCTURES,
    filter: "20,000 structures",
  },
  {
    name: "a value that a getter stored over this one is not noticed",
    file: "src/values/plain_encoder.ts",
    from: "    if (at < 0 || turn !== mine || target.uses !== uses) return false;",
    to: "    if (at < 0) return false;",
    suite: STRUCTURES,
    filter: "stores what getters gave",
  },
  {
    name: "a value that is no structure, and that a getter stored over this one, is not noticed",
    file: "src/values/plain_encoder.ts",
    from: "turn !== mine || target.uses !== uses) return false;\n    view.",
    to: "turn !== mine) return false;\n    view.",
    suite: STRUCTURES,
    filter: "whose getter stores",
  },
  {
    name: "an object that is met twice becomes two",
    file: "src/values/plain_encoder.ts",
    from: "before === objectCount && end >= 0 &&",
    to: "before < 0 &&",
    suite: STRUCTURES,
    filter: "tells leaves apart",
  },
  {
    name: "an object among many is not found again",
    file: "src/values/repeats.ts",
    from: "      if (leaves[places[at] - base - 1] === leaf) return true;\n",
    to: "",
    suite: STRUCTURES,
    filter: "tells leaves apart",
  },
  {
    name: "names beside the elements of an array are lost",
    file: "src/values/own.ts",
    from:
      "    return namesBesideElements(array, 0).length === 1 && arraysInheritNoNames(); // its length\n",
    to: "    return arraysInheritNoNames();\n",
    suite: STRUCTURES,
    filter: "keeps the properties of arrays",
  },
];
