//! What a merge must know of a type: which lists are sets or keyed, which maps are atomic.
//!
//! The built-in types come from `tests/model/schema.json`, made out of a real API server's OpenAPI document by
//! [`super::generate`]; those of custom resources from the schema in their definition.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub(crate) type TypeId = usize;

/// What scalars a type takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Text,
    Number,
    Bool,
    /// base64.
    Bytes,
    /// A resource quantity: normalised when it is stored.
    Quantity,
    Any,
}

#[derive(Debug, Clone)]
pub(crate) struct ListType {
    pub(crate) item: TypeId,
    /// One value; else items are found again by key or value.
    pub(crate) atomic: bool,
    /// Of a keyed list; empty for a set.
    pub(crate) keys: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct MapType {
    /// Declared members.
    pub(crate) fields: BTreeMap<String, TypeId>,
    /// Defaults of members that are keys of a list.
    pub(crate) key_defaults: BTreeMap<String, Value>,
    /// The type of members that are not declared; without one they are refused.
    pub(crate) other: Option<TypeId>,
    pub(crate) atomic: bool,
}

/// A type may take several shapes; the value decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Type {
    /// Empty for types without a name.
    pub(crate) name: String,
    pub(crate) scalar: Option<Scalar>,
    pub(crate) list: Option<ListType>,
    pub(crate) map: Option<MapType>,
}

/// The shape that a value takes of its type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    Map(&'a MapType),
    Scalar(Scalar),
    List(&'a ListType),
}

/// Types, by number.
#[derive(Debug)]
pub(crate) struct Schema {
    types: Vec<Type>,
}

impl Schema {
    pub(crate) fn get(&self, id: TypeId) -> &Type {
        // Ids are only made by the builder, for types that it has.
        &self.types[id]
    }

    pub(crate) fn shape(&self, id: TypeId, value: Option<&Value>) -> Shape<'_> {
        let atom = self.get(id);
        match value {
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                if let Some(scalar) = atom.scalar {
                    return Shape::Scalar(scalar);
                }
            }
            Some(Value::Array(_)) => {
                if let Some(list) = &atom.list {
                    return Shape::List(list);
                }
            }
            Some(Value::Object(_)) => {
                if let Some(map) = &atom.map {
                    return Shape::Map(map);
                }
            }
            Some(Value::Null) | None => {}
        }
        match (&atom.map, atom.scalar, &atom.list) {
            (Some(map), _, _) => Shape::Map(map),
            (None, Some(scalar), _) => Shape::Scalar(scalar),
            (None, None, Some(list)) => Shape::List(list),
            (None, None, None) => Shape::Scalar(Scalar::Any),
        }
    }
}

/// Collects types. Named ones are taken from the compact form as they are met.
pub(crate) struct Builder<'a> {
    named: &'a Map<String, Value>,
    known: BTreeMap<String, TypeId>,
    types: Vec<Type>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(named: &'a Map<String, Value>) -> Self {
        Self { named, known: BTreeMap::new(), types: Vec::new() }
    }

    pub(crate) fn finish(self) -> Schema {
        Schema { types: self.types }
    }

    fn push(&mut self, atom: Type) -> TypeId {
        self.types.push(atom);
        self.types.len() - 1
    }

    pub(crate) fn scalar(&mut self, scalar: Scalar) -> TypeId {
        self.push(Type { scalar: Some(scalar), ..Type::default() })
    }

    pub(crate) fn list(&mut self, item: TypeId, atomic: bool, keys: Vec<String>) -> TypeId {
        self.push(Type { list: Some(ListType { item, atomic, keys }), ..Type::default() })
    }

    pub(crate) fn map(&mut self, map: MapType) -> TypeId {
        self.push(Type { map: Some(map), ..Type::default() })
    }

    /// Anything, each list and map as one value.
    pub(crate) fn untyped(&mut self) -> TypeId {
        if let Some(id) = self.known.get("?atomic") {
            return *id;
        }
        let id = self.types.len();
        self.known.insert("?atomic".to_owned(), id);
        let map = MapType { other: Some(id), atomic: true, ..MapType::default() };
        let list = ListType { item: id, atomic: true, keys: Vec::new() };
        self.push(Type { name: String::new(), scalar: Some(Scalar::Any), list: Some(list), map: Some(map) })
    }

    /// Anything, maps by member.
    pub(crate) fn deduced(&mut self) -> TypeId {
        if let Some(id) = self.known.get("?deduced") {
            return *id;
        }
        let item = self.untyped();
        let id = self.types.len();
        self.known.insert("?deduced".to_owned(), id);
        let map = MapType { other: Some(id), ..MapType::default() };
        let list = ListType { item, atomic: true, keys: Vec::new() };
        self.push(Type { name: String::new(), scalar: Some(Scalar::Any), list: Some(list), map: Some(map) })
    }

    /// A type by its name in the compact form.
    pub(crate) fn named(&mut self, name: &str) -> TypeId {
        if let Some(id) = self.known.get(name) {
            return *id;
        }
        let id = self.push(Type::default());
        self.known.insert(name.to_owned(), id);
        let compact = self.named.get(name).cloned().unwrap_or_else(|| "obj".into());
        let made = self.compact(&compact);
        self.types[id] = Type { name: name.to_owned(), ..self.types[made].clone() };
        id
    }

    /// A type in the compact form: see [`super::generate`].
    fn compact(&mut self, compact: &Value) -> TypeId {
        if let Some(text) = compact.as_str() {
            return match text {
                "str" => self.scalar(Scalar::Text),
                "num" => self.scalar(Scalar::Number),
                "bool" => self.scalar(Scalar::Bool),
                "bytes" => self.scalar(Scalar::Bytes),
                "qty" => self.scalar(Scalar::Quantity),
                "obj" => self.untyped(),
                _ => match text.strip_prefix('#') {
                    Some(name) => self.named(name),
                    None => self.scalar(Scalar::Any),
                },
            };
        }
        let atomic = compact["atomic"] == true;
        if let Some(item) = compact.get("list") {
            let item = self.compact(item);
            let keys: Vec<String> = strings(&compact["keys"]);
            let atomic = keys.is_empty() && compact["set"] != true;
            return self.list(item, atomic, keys);
        }
        if let Some(item) = compact.get("map") {
            let other = Some(self.compact(item));
            return self.map(MapType { other, atomic, ..MapType::default() });
        }
        let mut map = MapType { atomic, ..MapType::default() };
        for (name, field) in compact["fields"].as_object().into_iter().flatten() {
            let id = self.compact(field);
            map.fields.insert(name.clone(), id);
        }
        for (name, default) in compact["defaults"].as_object().into_iter().flatten() {
            map.key_defaults.insert(name.clone(), default.clone());
        }
        self.map(map)
    }
}

/// The texts of a list of texts.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
