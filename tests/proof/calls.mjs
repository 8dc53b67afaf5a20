/**
 * Which parts of the proof call which exported functions, counted while they run. A function
 * without its row fails, and so does a row that names a part which never called it: so the proof
 * grows with the API.
 */
import { symbols } from "../../src/ffi/abi.ts";
