//! The emoji, and how a name becomes a method.

/// The emoji that the emoji service lists, in its order: name without colons, characters.
pub const LISTED: [(&str, &str); 99] = [
    ("joy", "😂"),
    ("sunglasses", "😎"),
    ("doughnut", "🍩"),
    ("stuck_out_tongue_winking_eye", "😜"),
    ("money_mouth_face", "🤑"),
    ("flushed", "😳"),
    ("mask", "😷"),
    ("nerd_face", "🤓"),
    ("ghost", "👻"),
    ("skull_and_crossbones", "☠️"),
    ("heart_eyes_cat", "😻"),
    ("hear_no_evil", "🙉"),
    ("see_no_evil", "🙈"),
    ("speak_no_evil", "🙊"),
    ("boy", "👦"),
    ("girl", "👧"),
    ("man", "👨"),
    ("woman", "👩"),
    ("older_man", "👴"),
    ("policeman", "👮"),
    ("guardsman", "💂"),
    ("construction_worker_man", "👷"),
    ("prince", "🤴"),
    ("princess", "👸"),
    ("man_in_tuxedo", "🤵"),
    ("bride_with_veil", "👰"),
    ("mrs_claus", "🤶"),
    ("santa", "🎅"),
    ("turkey", "🦃"),
    ("rabbit", "🐰"),
    ("no_good_woman", "🙅"),
    ("ok_woman", "🙆"),
    ("raising_hand_woman", "🙋"),
    ("bowing_man", "🙇"),
    ("man_facepalming", "🤦‍♂️"),
    ("woman_shrugging", "🤷"),
    ("massage_woman", "💆"),
    ("walking_man", "🚶"),
    ("running_man", "🏃"),
    ("dancer", "💃"),
    ("man_dancing", "🕺"),
    ("dancing_women", "👯"),
    ("rainbow", "🌈"),
    ("skier", "⛷"),
    ("golfing_man", "🏌️"),
    ("surfing_man", "🏄"),
    ("basketball_man", "⛹️"),
    ("biking_man", "🚴"),
    ("point_up_2", "👆"),
    ("vulcan_salute", "🖖"),
    ("metal", "🤘"),
    ("call_me_hand", "🤙"),
    ("thumbsup", "👍"),
    ("wave", "👋"),
    ("clap", "👏"),
    ("raised_hands", "🙌"),
    ("pray", "🙏"),
    ("dog", "🐶"),
    ("cat2", "🐈"),
    ("pig", "🐷"),
    ("hatching_chick", "🐣"),
    ("snail", "🐌"),
    ("bacon", "🥓"),
    ("pizza", "🍕"),
    ("taco", "🌮"),
    ("burrito", "🌯"),
    ("ramen", "🍜"),
    ("champagne", "🍾"),
    ("tropical_drink", "🍹"),
    ("beer", "🍺"),
    ("tumbler_glass", "🥃"),
    ("world_map", "🗺️"),
    ("beach_umbrella", "🏖️"),
    ("mountain_snow", "🏔️"),
    ("camping", "🏕️"),
    ("steam_locomotive", "🚂"),
    ("flight_departure", "🛫"),
    ("rocket", "🚀"),
    ("star2", "🌟"),
    ("sun_behind_small_cloud", "🌤️"),
    ("cloud_with_rain", "🌧️"),
    ("fire", "🔥"),
    ("jack_o_lantern", "🎃"),
    ("balloon", "🎈"),
    ("tada", "🎉"),
    ("trophy", "🏆"),
    ("iphone", "📱"),
    ("pager", "📟"),
    ("fax", "📠"),
    ("bulb", "💡"),
    ("money_with_wings", "💸"),
    ("crystal_ball", "🔮"),
    ("underage", "🔞"),
    ("interrobang", "⁉️"),
    ("100", "💯"),
    ("checkered_flag", "🏁"),
    ("crossed_swords", "⚔️"),
    ("floppy_disk", "💾"),
    ("poop", "💩"),
];

/// Has a method of its own, but the emoji service does not list it.
pub const UNLISTED: &str = "relaxed";

/// Every name that can be voted for, without colons: 100.
pub fn names() -> impl Iterator<Item = &'static str> {
    LISTED.iter().map(|(name, _)| *name).chain([UNLISTED])
}

/// The voting service's method for a name, with or without colons: `:point_up_2:` is `VotePointUp2`.
pub fn method(name: &str) -> String {
    let mut method = String::from("Vote");
    for part in name.trim_matches(':').split('_') {
        let mut letters = part.chars();
        method.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        method.push_str(letters.as_str());
    }
    method
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn methods_are_named_as_in_the_proto() {
        assert_eq!(method(":stuck_out_tongue_winking_eye:"), "VoteStuckOutTongueWinkingEye");
        assert_eq!(method(":100:"), "Vote100");
        assert_eq!(method("point_up_2"), "VotePointUp2");
        assert_eq!(method("jack_o_lantern"), "VoteJackOLantern");
    }

    #[test]
    fn every_name_has_a_method_of_its_own() {
        let methods: BTreeSet<String> = names().map(method).collect();
        assert_eq!(methods.len(), 100);
        let characters: BTreeSet<&str> = LISTED.iter().map(|(_, characters)| *characters).collect();
        assert_eq!(characters.len(), 99);
    }
}
